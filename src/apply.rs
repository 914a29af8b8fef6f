//! Executes decided writes against the API server.
