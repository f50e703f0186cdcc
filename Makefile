# Two commands: `make run` and `make test`. Both install what they lack (Debian, as root).

# How CRI reaches the core in `make run`: split, loopback or merged.
WIRING ?= split
# ONCE=1 ends `make run` by itself.
ONCE ?=

# One set of packages and features for everything that is built in a profile, so that nothing is compiled twice.
MERGED = --workspace --features core-daemon/merged

# The OCI runtime of `make compare-peer`.
ENGINE ?= runc

# Inputs of each kind for `make fuzz`.
FUZZ ?= 1000000

.PHONY: run test test-kubelet fuzz compare steady compare-peer soak log-throughput report bench deps bins lint clean

run: deps
	cargo build --release --bin core-daemon --bin cri-daemon $(MERGED)
	deploy/scripts/build-shim target/release
	deploy/scripts/demo target/release $(WIRING) $(if $(ONCE),once)

test: deps
	tests/scripts/run-all

# Static pods of a real kubelet on every wiring. Builds the kubelet once (minutes) and keeps it in ~/.cache/seam.
test-kubelet: deps
	tests/scripts/run-all kubelet

# Made up SPDY and WebSocket bytes, with a nightly compiler. Installs cargo-fuzz where it lacks.
fuzz: deps
	command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	for target in spdy websocket; do \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -runs=$(FUZZ) -max_len=4096 || exit 1; \
	done

# What the hop costs: pods in turn in the three wirings; PODS=N, see `-- --help` for more.
compare: deps
	cargo build --release --bins $(MERGED)
	deploy/scripts/build-shim target/release
	target/release/compare $(if $(PODS),--pods $(PODS))

# A node at rest: PODS pods (105) in each wiring, polled as a kubelet polls; see `-- --help` for more.
steady: deps
	cargo build --release --bins $(MERGED)
	deploy/scripts/build-shim target/release
	target/release/steady $(if $(PODS),--pods $(PODS))

# Ours against Debian's containerd in one run, with bars; PODS=N, ENGINE=runc or crun; see `-- --help` for more.
compare-peer: deps
	deploy/scripts/install-deps $(ENGINE)
	cargo build --release --bins $(MERGED)
	deploy/scripts/build-shim target/release
	target/release/compare-peer --engine $(ENGINE) $(if $(PODS),--pods $(PODS))

# Pods that come and go for MINUTES (30) in WIRING, RATE (200) a minute: no error, nothing left, memory flat.
soak: deps
	cargo build --release --bins $(MERGED)
	deploy/scripts/build-shim target/release
	target/release/soak --wiring $(WIRING) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE))

# How fast output gets into a CRI log, by turns with Debian's containerd; see `-- --help` for more.
log-throughput: deps
	cargo build --release --bins $(MERGED)
	deploy/scripts/build-shim target/release
	target/release/log-throughput $(if $(MEGABYTES),--megabytes $(MEGABYTES))

# All that the hop costs, measured and drawn: target/report/report.html. QUICK=1 shows in a few minutes that it works;
# ONLY=calls,hop,timeline,batch,scale,kubelet; RESULTS=1 writes docs/results.md.
report: deps
	cargo build --release $(MERGED) $(foreach bin,core-daemon cri-daemon report stub-engine fake-core cni-gate,--bin $(bin))
	deploy/scripts/build-shim target/release
	SEAM_KUBELET=$$(tests/scripts/build-kubelet --if-cached || true); \
	if [ -n "$$SEAM_KUBELET" ]; then export SEAM_KUBELET; fi; \
	target/release/report $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(RESULTS),--results docs/results.md)
	if command -v chromium >/dev/null; then tests/scripts/check-report target/report/report.html; fi

bench:
	cargo bench -p seam-bench

# The binaries that the end-to-end suites start, for a `cargo test` by hand.
bins:
	tests/scripts/run-all bins

lint:
	tests/scripts/run-all lint

deps:
	@deploy/scripts/install-deps

clean:
	cargo clean
