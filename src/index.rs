//! The shared cache: Services, pods and slices by namespace, kept by the watches.
