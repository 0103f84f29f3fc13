# Estiba. `make help` lists what there is.

SHELL := /bin/bash
.DELETE_ON_ERROR:

OUT       := _output
ARCH      ?= $(shell go env GOARCH)
PLATFORMS := amd64 arm64
BINARIES  := mover restore-wait velero-plugin install-plugin estiba
IMAGE     := estiba.test/estiba
CLUSTER   := go run ./tests/cluster/cmd/cluster
VELERO_NAMESPACE ?= backup-system

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ The two commands
.PHONY: demo
demo: cluster-up ## Back up, delete, restore and compare an application on a local cluster, as a story
	@mkdir -p $(OUT) && go build -o $(OUT)/demo ./tests/demo
	@$(CLUSTER) exec -- $(CURDIR)/$(OUT)/demo

.PHONY: test
test: cluster-up ## Run all tests: unit, conformance, attacks, end to end on the local cluster
	@go run ./tests/testkit/cmd/runtests e2e,rights unit,attack

##@ Building
.PHONY: build
build: ## Build every binary for every platform into _output/
	@for arch in $(PLATFORMS); do $(MAKE) --no-print-directory binaries ARCH=$$arch || exit 1; done

.PHONY: binaries
binaries:
	@for b in $(BINARIES); do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -buildvcs=auto -trimpath -ldflags '-s -w' -o $(OUT)/$(ARCH)/$$b ./cmd/$$b || exit 1; \
	done

.PHONY: images
images: binaries ## Assemble the image as a tarball, without a container engine or a registry
	@go run ./tests/cluster/cmd/image -arch $(ARCH) -name $(IMAGE) -from $(OUT)/$(ARCH) -to $(OUT)/estiba-$(ARCH).tar

.PHONY: generate
generate: ## Make the generated code and pages anew (deepcopy, CRDs, docs/kinds.md, docs/flags.md)
	@go tool -modfile=tools/generate/go.mod controller-gen object paths=./mover/api/...
	@go tool -modfile=tools/generate/go.mod controller-gen crd paths=./mover/api/... output:crd:dir=examples/install/crds
	@go test -count=1 -run '^TestGeneratedPagesAreUpToDate$$' ./tests/docs -update

##@ Releasing
RELEASE_TAG    ?= $(shell git describe --tags --always)
RELEASE_IMAGE  ?= ghcr.io/estiba-dev/estiba
RELEASE_DIGEST ?=

.PHONY: manifests
manifests: ## Write the manifests with a release's image to _output/release/ (RELEASE_IMAGE, RELEASE_TAG, RELEASE_DIGEST)
	@rm -rf $(OUT)/release $(OUT)/overlay && mkdir -p $(OUT)/release $(OUT)/overlay
	@printf '%s\n' 'resources: [../../examples/install]' \
	  'images: [{name: estiba, newName: "$(RELEASE_IMAGE)", newTag: "$(RELEASE_TAG)$(addprefix @,$(RELEASE_DIGEST))"}]' > $(OUT)/overlay/kustomization.yaml
	@kubectl kustomize $(OUT)/overlay > $(OUT)/release/estiba.yaml

.PHONY: release-files
release-files: build manifests ## Write the binaries, the manifests and their checksums to _output/release/
	@for arch in $(PLATFORMS); do \
	  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C $(OUT)/$$arch -c $(BINARIES) | gzip -n > $(OUT)/release/estiba-linux-$$arch.tar.gz || exit 1; \
	done
	@cd $(OUT)/release && sha256sum -- * > SHA256SUMS

##@ Checking
.PHONY: check
check: check-format check-generated lint lint-workflows check-licences check-vulnerabilities ## Check format, lint, workflows, generated code, licences, known vulnerabilities and the arrows between packages
	@go test ./tests/layering/

.PHONY: check-format
check-format:
	@out=$$(gofmt -l cmd mover plugins tests tools); if [ -n "$$out" ]; then echo "not formatted (gofmt -w mends it):"; echo "$$out"; exit 1; fi

.PHONY: check-generated
check-generated: generate
	@out=$$(git status --porcelain -- mover/api examples/install/crds docs/kinds.md docs/flags.md); if [ -n "$$out" ]; then echo "generated code is not up to date; commit what 'make generate' made:"; echo "$$out"; exit 1; fi

.PHONY: lint
lint:
	@go tool -modfile=tools/lint/go.mod golangci-lint run ./...

# Without the linters that actionlint calls where they happen to be installed: it says the same on every machine.
.PHONY: lint-workflows
lint-workflows:
	@go tool -modfile=tools/actions/go.mod actionlint -shellcheck= -pyflakes= .github/workflows/*.yml

# Everything that is linked into what we ship must be under one of these.
LICENCES := Apache-2.0,MIT,BSD-2-Clause,BSD-3-Clause,ISC,MPL-2.0,CC0-1.0

.PHONY: check-licences
check-licences:
	@mkdir -p $(OUT)
	@go tool -modfile=tools/licenses/go.mod go-licenses check ./cmd/... --ignore github.com/estiba-dev/estiba --allowed_licenses=$(LICENCES) 2> $(OUT)/licences.log \
	  || { grep -v 'non-Go code\|\.s$$' $(OUT)/licences.log; exit 1; }

# The database of vulnerabilities is on the network. Where it can't be reached, that is said, and the other checks count.
.PHONY: check-vulnerabilities
check-vulnerabilities:
	@out=$$(go tool -modfile=tools/vuln/go.mod govulncheck ./cmd/... 2>&1) && exit 0; \
	  case "$$out" in \
	    *"fetching vulnerabilities:"*) echo "not checked for known vulnerabilities: $${out##*fetching vulnerabilities: }";; \
	    *) echo "$$out"; exit 1;; \
	  esac

.PHONY: figures
figures: ## Print the figures of the code and of the prose: sizes, contracts, language
	@go run ./tools/figures . README.md docs/*.md

.PHONY: test-unit
test-unit: ## Run the unit and conformance tests with the race detector; no cluster needed
	@go run ./tests/testkit/cmd/runtests unit

.PHONY: test-e2e
test-e2e: cluster-up ## Run the end-to-end tests on the local cluster
	@go run ./tests/testkit/cmd/runtests e2e

.PHONY: test-slow
test-slow: ## Run the conformance tests with older Veleros, Estiba beside Velero's node-agent, disaster recovery on a second cluster, the capabilities of workers one by one, volumes that need much memory, the attacks for 60 seconds each, the fuzzers for 30 seconds each, and the benchmarks
	@$(MAKE) --no-print-directory cluster-up CLUSTER_FLAGS="$(CLUSTER_FLAGS) --fsb"
	@go run ./tests/testkit/cmd/runtests e2e-slow
	@go test -tags slow -count=1 -timeout 30m -run '^TestOtherVeleros$$' ./tests/conformance
	@go test -tags slow -count=1 -timeout 30m -run '^(TestEachCapabilityOfAWorkerIsNeeded$$|TestSlow)' ./mover/app
	@go test -tags slow,testing -count=1 -timeout 30m -run '^TestSlow' ./mover/engine/kopiaengine
	@ESTIBA_ATTACK_SECONDS=60 go run ./tests/testkit/cmd/runtests attack
	@grep -rlE '^func Fuzz' --include=*_test.go mover plugins | while read -r file; do \
	  for f in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$file); do \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime 30s -fuzzminimizetime 10x ./$$(dirname $$file) || exit 1; \
	  done; \
	done
	@go test -run '^$$' -bench . -benchtime 1x ./mover/...

##@ The local cluster
.PHONY: cluster-up
cluster-up: images ## Start a two-node Kubernetes with an S3 server, Velero and Estiba on this machine (root)
	@$(CLUSTER) up --velero-namespace $(VELERO_NAMESPACE) $(CLUSTER_FLAGS)
	@$(CLUSTER) install-estiba examples/install $(OUT)/estiba-$(ARCH).tar

.PHONY: cluster-down
cluster-down: ## Stop the local cluster and remove all of it but the cache
	@$(CLUSTER) down

.PHONY: clean
clean: ## Remove what was built in the checkout
	@rm -rf $(OUT)
