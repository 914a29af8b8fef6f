//! Named critical tasks: one that ends brings the process down.
