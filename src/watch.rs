//! The list-and-watch loop.
