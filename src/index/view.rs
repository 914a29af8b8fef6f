//! What admission may ask of the index.
