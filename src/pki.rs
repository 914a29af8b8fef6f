//! Self-made certificates: the CA in its Secret, the leaf in memory, the caBundle.
