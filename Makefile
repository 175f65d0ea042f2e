# Bare `make` prints this menu. What follows `##` is its text.
.DEFAULT_GOAL := help
.PHONY: help deps run build test lint vuln long fuzz generate profile bench bench-ring floor results results-page docs kernels systemd soak soak-serve release clean

GO ?= go
# Stamp the commit into the binary where git can tell it (it cannot in a tree
# that belongs to another user, or outside a repository).
BUILDVCS := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
# The command is built by its profile (cmd/unknot/default.pgo), and every package with it.
# Its tests need not be, which would compile them all once more, nor what is vetted.
NOPGO := -pgo=off
# All packages of all modules: go.work, which see. The library is the module of this folder.
ALL := work
# The engine on a fake kernel, in virtual time; -args -model 2m runs longer.
FAKE := ^(TestModel|TestDefect|TestAnswersRefused)

help: ## print this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

deps: ## install what building needs and this machine lacks
	@sh scripts/deps.sh

run: deps build ## build, storm every engine for about a minute, write results/
	@sh scripts/firstrun.sh

build: deps ## build bin/unknot
	$(GO) build -pgo=auto -buildvcs=$(BUILDVCS) -o bin/unknot ./cmd/unknot

test: deps ## vet and run all tests; as root also what needs root
	$(GO) test $(NOPGO) -vet=all -timeout 20m $(ALL)
	$(GO) test $(NOPGO) -tags fakekernel -run '$(FAKE)' ./engine

lint: deps ## gofmt, staticcheck, and the rule of who may import whom (.depguard.yaml)
	@sh scripts/lint.sh

vuln: deps ## look up what the code calls in Go's vulnerability database
	@sh scripts/vuln.sh

long: deps ## the long forms of tests, which test leaves to the night: a quarter of an hour
	@sh scripts/long.sh

fuzz: deps ## run each fuzz target for a minute (TIME=10s, TARGETS=PATTERN); what fails is kept in testdata/fuzz
	@sh scripts/fuzz.sh $(or $(TIME),1m) $(TARGETS)

generate: ## make the generated code again (installs clang)
	@sh scripts/deps.sh generate
	$(GO) generate $(ALL)

profile: deps ## profile storms for the compiler to optimize by (cmd/unknot/default.pgo), three minutes
	@sh scripts/profile.sh

bench: build ## run the Go benchmarks of all packages
	$(GO) test $(NOPGO) -run '^$$' -bench . $(ALL)

bench-ring: ## measure the ring against its peers
	@sh ring/peers/run.sh

floor: deps ## build the yardsticks in C (bench/floor), which nothing else needs
	@$(MAKE) --no-print-directory -C bench/floor

results: build ## measure all engines and render results/README.md; continues what was interrupted (DURATION=500ms COUNT=6)
	@PATH="$(CURDIR)/bin:$$PATH" sh scripts/results.sh $(STEPS)
	@$(MAKE) --no-print-directory results-page

results-page: ## render results/README.md and its figures from what was measured
	@$(GO) run $(NOPGO) ./cmd/unknot/internal/page results

docs: build ## run the commands in the documentation and compare what they print
	$(GO) run ./scripts/rundocs

kernels: ## run tests on Debian's kernels 5.10, 6.1 and 6.12, emulated (KERNELS="6.1", SUITES=notify,engine, CPUS=4, AS=user, ARCH=arm64)
	@sh scripts/deps.sh kernels$(if $(filter arm64,$(ARCH)),-arm64)
	@sh scripts/kernels.sh $(if $(ARCH),-A $(ARCH)) -c $(or $(CPUS),2) $(if $(SUITES),-s $(SUITES)) $(if $(AS),-u) $(KERNELS)

systemd: ## run `unknot serve` under systemd as the first process of an emulated machine (KERNELS=6.12)
	@sh scripts/deps.sh kernels
	@sh scripts/kernels.sh -s systemd $(or $(KERNELS),6.12)

soak: deps ## ten minutes of hostile storms on one engine: its counters, tracepoints and targets must agree (SOAK=1h, TAGS=faults); as root
	$(GO) test $(NOPGO) $(if $(TAGS),-tags $(TAGS)) ./bench -run 'TestSoak$$' -v -count=1 -timeout 0 -soak $(or $(SOAK),10m)

soak-serve: build ## an hour of `unknot serve` under a mixed load that it has to survive as it was (SOAK=1h); as root also full disks and runc
	$(GO) test $(NOPGO) ./cmd/unknot -run TestSoakServe -v -timeout 0 -soak $(or $(SOAK),1h) -soak-program $(CURDIR)/bin/unknot

release: ## make static binaries, .deb, .rpm, a bill of materials and checksums in dist/, of the last commit
	@sh scripts/deps.sh release
	@sh scripts/release.sh

clean: ## remove what building made
	rm -rf bin dist
