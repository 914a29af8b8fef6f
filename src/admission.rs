//! Admission: the pure verdict on a review, the patch, and the AdmissionReview itself.
