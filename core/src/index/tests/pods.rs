//! Which sources a change of a pod concerns, and which of them can wait.

use super::*;
use crate::fixtures::own_slice;

#[test]
fn a_label_that_no_selector_asks_for_concerns_no_source() {
    let mut index = empty();
    index.apply_service(service("web").enabled());
    index.apply_service(service("blue").enabled().selecting("color", "blue"));
    assert_eq!(index.apply_pod(&pod("a").version(1)), keys(&["web"]));
    assert_eq!(index.apply_pod(&pod("a").label("step", "1").version(2)), Dirty::new());
    let blue = pod("a").label("step", "1").label("color", "blue");
    assert_eq!(index.apply_pod(&blue.clone().version(3)), keys(&["blue"]));
    assert_eq!(index.apply_pod(&blue.readiness(false, at(9)).version(4)), keys(&["blue", "web"]));
    assert_eq!(index.apply_pod(&pod("a").readiness(false, at(9)).version(5)), keys(&["blue"]));
}

#[test]
fn a_source_that_is_led_by_another_pod_that_serves_is_known() {
    let mut index = empty();
    index.apply_service(service("web").enabled());
    index.apply_service(service("web-leader").leading("web", "uid-web"));
    index.apply_slice(own_slice("web-leader", &["a"]));
    let (web, ready) = (keys(&["web"]), |name: &str, is| pod(name).readiness(is, at(0)));
    assert_eq!(index.led_elsewhere(&web, "b"), Dirty::new(), "a is unknown");
    index.apply_pod(&ready("a", true).version(2));
    assert_eq!(index.led_elsewhere(&web, "b"), web);
    assert_eq!(index.led_elsewhere(&web, "a"), Dirty::new());
    assert_eq!(index.led_elsewhere(&keys(&["api"]), "b"), Dirty::new());
    index.apply_pod(&ready("a", false).version(3));
    assert_eq!(index.led_elsewhere(&web, "b"), Dirty::new());
    index.apply_slice(own_slice("web-leader", &[]).version(9));
    index.apply_pod(&ready("a", true).version(4));
    assert_eq!(index.led_elsewhere(&web, "b"), Dirty::new(), "no pod leads");
}
