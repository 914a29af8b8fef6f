//! What a bound of zero means, and what each bound is called.

use super::*;

#[test]
fn a_bound_of_zero_refuses_nobody() {
    let mut index = bounded(0, 0);
    for name in ["a", "b"] {
        assert_eq!(index.apply_service(service(name).enabled()), keys(&[name]));
    }
    let pods: Vec<RawPod> = ["x", "y"].map(pod).into();
    index.reset_pods(Some(NAMESPACE), &pods, Rv(10));
    for name in ["a", "b"] {
        let known = index.snapshot(&key(name));
        assert_eq!(
            (known.over_limit, known.over_pods, known.pods.len()),
            (None, None, 2),
            "{name}"
        );
    }
}

#[test]
fn a_bound_is_called_as_in_the_documentation() {
    let metrics = include_str!("../../../../docs/metrics.md");
    for (limit, label, flag) in [
        (Limit::ServicesPerNamespace, "services_per_namespace", "--max-services-per-namespace"),
        (Limit::PodsPerService, "pods_per_service", "--max-pods-per-service"),
    ] {
        assert_eq!((limit.as_str(), limit.flag()), (label, flag));
        assert!(metrics.contains(&format!("`{label}`")), "{label}");
    }
}
