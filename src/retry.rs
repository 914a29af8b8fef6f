//! The one way to call the API server: deadline, retries, counting.
