crate::support::harness::tests![];
