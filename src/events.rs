//! Kubernetes Events: the reasons and their publisher.
