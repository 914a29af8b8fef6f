//! The protocol between replicas: rank, freshness, epochs.
