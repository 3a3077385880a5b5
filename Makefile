# `make` alone lists what can be made.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 10s
VULNDB   ?= https://vuln.go.dev
# One test binary may take this long; a hang ends with all goroutines' stacks. No result is taken from the cache (-count 1):
# softhsm-test builds the program by itself, which the go command does not know of.
TIMEOUT  ?= 900s

GOLANGCI_LINT ?= go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

export CGO_ENABLED = 1
export FUZZTIME VULNDB

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: deps build ## start server and simulator, make one payment, print a link and test cards; Ctrl-C ends it
	bin/finpay run

.PHONY: demo
demo: deps build ## one payment through every step, explained, then end
	bin/finpay demo

.PHONY: test
test: deps ## all tests that need no browser; FAULTS is how often the ledger is killed in the middle of a commit (30), KILLS how often the server under load (8)
	go test -count 1 -timeout $(TIMEOUT) ./softhsm-test ./... # the longest first: it waits more than it computes
	go test -tags failpoints -count 1 -timeout $(TIMEOUT) -run '^TestKilled' ./appliance/ledger

.PHONY: faults
faults: deps ## the ledger is killed in the middle of a thousand commits, and the server under load at each transition of a payment and at any time. FAULTS (1000), KILLS (200)
	FAULTS=$${FAULTS:-1000} go test -tags failpoints -count 1 -timeout 3600s -run '^TestKilled' -v ./appliance/ledger
	KILLS=$${KILLS:-200} go test -count 1 -timeout 3600s -run '^TestKilledAtEveryTransition' -v ./softhsm-test

.PHONY: race
race: deps ## the same under the race detector, but for the built program's tests, which it would not see into
	go test -race -count 1 -timeout $(TIMEOUT) $$(go list ./... | grep -v '/softhsm-test$$')

.PHONY: scan
scan: deps ## marked cards through every route and under load, then a search of memory and files; needs root. SCAN_ROUNDS (5)
	SCAN_ROUNDS=$${SCAN_ROUNDS:-5} go test -count 1 -timeout $(TIMEOUT) -run '^TestScan' -v ./softhsm-test | grep -v level=
	go test -count 1 -timeout $(TIMEOUT) ./softhsm-test/scan

.PHONY: browser
browser: deps ## the shopper's pages in headless Chromium
	@.ci/deps chromium node
	@cd api/checkout/script && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	go test -tags browser -run Browser -count 1 -timeout $(TIMEOUT) ./softhsm-test/...

.PHONY: web
web: ## build the checkout page's script again, from api/checkout/script
	@.ci/deps node
	.ci/web api/checkout/checkout.js

.PHONY: webtest
webtest: deps ## the script's and the JavaScript client's tests, and whether the built file is what its sources give
	@.ci/deps node
	@mkdir -p bin
	.ci/web bin/checkout.js
	@cmp bin/checkout.js api/checkout/checkout.js || { echo "api/checkout/checkout.js is not what its sources give: make web" >&2; exit 1; }
	cd api/checkout/script && node --test
	cd api/client/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && node --test
	go test -count 1 -timeout $(TIMEOUT) -run '^TestJavaScript' ./softhsm-test

.PHONY: screenshots
screenshots: deps ## each of the shopper's pages in each language, light and dark, phone and desktop: bin/screenshots
	@.ci/deps chromium node
	@cd api/checkout/script && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	SCREENSHOTS=$(CURDIR)/bin/screenshots go test -tags browser -run '^TestBrowserPages$$' -count 1 -timeout $(TIMEOUT) ./softhsm-test

.PHONY: peers
peers: deps ## programs of other hands: a log witness, stripe-mock, and the conformance suite over openCryptoki and p11-kit; needs root or sudo
	@.ci/deps opencryptoki p11kit ssh
	@.ci/peers

.PHONY: fuzz
fuzz: deps ## every fuzz target for FUZZTIME (10s)
	@.ci/fuzz

.PHONY: bench
bench: deps ## speed against its targets; BENCH_JSON=FILE collects the figures. BENCH_PAYMENTS (3000), BENCH_BASE: see docs/operations.md
	@go test -tags bench -run '^TestFigures$$' -count 1 -p 1 -v -timeout $(TIMEOUT) ./hsm ./pci/custody ./pci/tokenization ./pci/acquiring/iso8583 ./appliance/ledger ./appliance/audit ./appliance/auditor ./softhsm-test/... | grep -vE '^(=== RUN|--- PASS|PASS|ok|\?)'

.PHONY: cover
cover: deps ## statement coverage: the total, and bin/cover.html
	@mkdir -p bin
	go test -timeout $(TIMEOUT) -coverpkg=./... -coverprofile=bin/cover.out ./...
	@go tool cover -html=bin/cover.out -o bin/cover.html
	@go tool cover -func=bin/cover.out | tail -1

.PHONY: lint
lint: deps ## golangci-lint, with the floors of the architecture (.golangci.yml)
	$(GOLANGCI_LINT) run ./...

.PHONY: vuln
vuln: ## known vulnerabilities of what is linked; VULNDB=file:///DIR for a copy of the database
	@.ci/vuln

.PHONY: build
build: ## bin/finpay and bin/finpay-probe
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/finpay ./appliance
	go build -trimpath -o bin/finpay-probe ./appliance/probe

.PHONY: deps
deps: ## install what is missing: SoftHSM2, NSS softokn and a C compiler
	@.ci/deps softhsm2 nss cc

.PHONY: clean
clean: ## remove bin; what a trial has stored (var) stays
	rm -rf bin
