# The one entry for people and for CI: every step of .ci/run and of the workflows is a target here.
# What takes more than a line is a script in scripts/ or e2e/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Steps share cargo's target directory and one cluster.
.NOTPARALLEL:

IMAGE ?= zen-lead:dev
# The sample of `make mutants`: one in so many, others with each commit.
SAMPLE ?= 200
# Names of measurements, none for all.
BENCH ?=
# Not empty: `make test` counts the covered lines.
COVERAGE ?=

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check
check: toolchain ## What to run after each change: format, clippy, unit tests, a short model; no Go, no cluster, no root
	scripts/check.sh

.PHONY: demo
demo: toolchain-all ## A cluster from nothing, zen-lead in it, and a failover before your eyes (KEEP=1 leaves it running)
	e2e/demo.sh

.PHONY: build
build: toolchain ## The binary for development (target/debug/zen-lead)
	cargo build --locked

.PHONY: image
image: toolchain-all ## The static release binary as an image on the node of the running cluster
	binary=$$(scripts/static_build.sh) && e2e/load_image.sh $(IMAGE) "$$binary"

.PHONY: lint
lint: toolchain-all ## Format, clippy, rustdoc, shellcheck, prose, chart, manifests, workflows, Dockerfile, go vet, licences
	scripts/lint.sh

.PHONY: test
test: toolchain-all ## Unit, router and API tests; starts the cluster, whose API server they use
	e2e/cluster.sh build prometheus
	scripts/model.sh
	$(if $(COVERAGE),scripts/coverage.sh,scripts/test.sh test --locked --workspace)
	e2e/test_manifests.sh

# The targets below e2e/ need the feature "e2e", so that `cargo test` alone does not run them.
.PHONY: e2e
e2e: cluster-up image ## Tests with real pods and traffic, the demo among them
	e2e/cluster.sh build helm3 helm4
	KEEP_CLUSTER=1 e2e/demo.sh
	scripts/test.sh test --locked --features e2e --test e2e

.PHONY: gitops
gitops: cluster-up image ## Install, keep and remove zen-lead as Argo CD and Flux do, by their libraries (a part of soak)
	e2e/test_gitops.sh

.PHONY: deny
deny: toolchain ## Licences, banned crates and sources of the dependencies (part of lint)
	deny=$$(scripts/tool.sh cargo-deny) && "$$deny" --locked check licenses bans sources

.PHONY: audit
audit: toolchain ## Known vulnerabilities in the dependencies (RustSec)
	scripts/audit.sh

.PHONY: coverage
coverage: ## `make test` with counters; fails where too few lines are covered (target/coverage/lcov.info)
	$(MAKE) test COVERAGE=1

.PHONY: mutants
mutants: toolchain ## A few mutants of the core, and which of them the tests notice (SAMPLE=n: one in n)
	scripts/mutants.sh --sample $(SAMPLE)

.PHONY: fuzz
fuzz: toolchain ## The fuzz targets, each for FUZZ_SECONDS (default 20); fuzz/README.md
	scripts/fuzz.sh

.PHONY: soak
soak: toolchain-all ## What takes long: larger worlds, more walks, faults, fuzzing, all mutants (SOAK_MINUTES, default 300)
	scripts/soak.sh

.PHONY: bench
bench: cluster-up image ## The measurements (BENCH=burst: one of them); tables, and JSON and figures in target/bench
	scripts/test.sh bench --locked --features e2e --bench bench -- $(BENCH)

RECORDING = $(CURDIR)/target/monitoring/recording.json
.PHONY: monitoring-picture
monitoring-picture: toolchain-all ## Draw docs/images/dashboard.svg anew, from 5 minutes on the local cluster
	e2e/cluster.sh build prometheus
	mkdir -p $(dir $(RECORDING))
	ZEN_LEAD_RECORDING=$(RECORDING) scripts/test.sh test --locked --test cluster -- monitoring::
	scripts/dashboard_picture.py $(RECORDING) docs/images/dashboard.svg

# Not empty: `make release-dry-run` compiles everything a second time.
REBUILD ?=
.PHONY: release-dry-run
release-dry-run: toolchain-all ## Rehearse a release against a registry on loopback (REBUILD=1 compiles twice); docs/contributing/releasing.md
	scripts/release/dry_run.sh $(if $(REBUILD),--rebuild)

.PHONY: cluster-up cluster-down cluster-status
cluster-up: ## Start the local Kubernetes (built from source the first time)
	e2e/cluster.sh up
cluster-down: ## Remove it
	e2e/cluster.sh down
cluster-status: ## Show its components
	e2e/cluster.sh status

.PHONY: clean
clean: cluster-down ## Remove the cluster and everything built in this checkout
	cargo clean

.PHONY: toolchain toolchain-all
toolchain:
	@scripts/toolchain.sh rust
toolchain-all: toolchain
	@scripts/toolchain.sh go openssl curl
