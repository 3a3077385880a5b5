//go:build bench

package softhsmtest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs: tokens over TLS, registry and log on, client and appliance on the same machine.
// BENCH_TOKENS says how many cards a batch has.
func TestFigures(t *testing.T) {
	cards := 300_000
	if text := os.Getenv("BENCH_TOKENS"); text != "" {
		var err error
		if cards, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newSystem(t, setting{"token_rate: 20000", "token_rate: 1000000"}, setting{"token_burst: 40000", "token_burst: 1000000"}, setting{"level: info", "level: warn"})
	rate := s.batchRate(0, cards/10) // connections and tables are warm
	small := s.resident()
	rate = s.batchRate(1_000_000_000, cards)
	again := s.batchRate(1_000_000_000, cards)
	large := s.resident()

	baseline := httptest.NewUnstartedServer(http.HandlerFunc(parses))
	baseline.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	baseline.StartTLS()
	defer baseline.Close()
	var turns [2][]float64
	for range 3 {
		turns[0] = append(turns[0], s.singleRate(baseline.Client(), baseline.URL))
		turns[1] = append(turns[1], s.singleRate(s.manyConnections(), s.cfg.PublicURL))
	}
	figures.Report(t,
		figures.Alone(fmt.Sprintf("NDJSON over TLS, %d new cards", cards), rate, "tokens/s", ">= 60000"),
		figures.Alone("the same cards again, known to the registry", again, "tokens/s", ">= 60000"),
		figures.Against("appliance's memory after the batch, to before", large, small, "MiB", "<= 2"),
		figures.Against("POST /v1/tokens, 64 connections, new cards, to a handler that parses and answers 204", median(turns[1]), median(turns[0]), "requests/s", ">= 0.5"),
	)
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// parses is the least that a server does with a card.
func parses(w http.ResponseWriter, r *http.Request) {
	var card struct{ Number, Expiry string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<10)).Decode(&card); err != nil || card.Number == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// spread returns the n-th of cards of which few begin and end alike: what changes from one to the next is in the BIN.
func spread(n int) string {
	return luhnNumber(fmt.Sprintf("4%05d", n%100_000), n/100_000*7919%1_000_000_000)
}

// flood is a body of NDJSON with n cards, made as it is read.
type flood struct {
	next, end int
	rest      []byte
}

func (f *flood) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(f.rest) == 0 {
			if f.next == f.end {
				if n == 0 {
					err = io.EOF
				}
				return n, err
			}
			f.rest = append(append(append(f.rest[:0], `{"number":"`...), spread(f.next)...), "\",\"expiry\":\"2031-12\"}\n"...)
			f.next++
		}
		m := copy(p[n:], f.rest)
		f.rest, n = f.rest[m:], n+m
	}
	return n, nil
}

// batchRate sends n cards, from the first one on, and returns how many were answered with a token in a second.
func (s *system) batchRate(first, n int) float64 {
	s.t.Helper()
	client := s.newClient()
	client.Timeout = 0
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.cfg.PublicURL+"/v1/tokens/batch", &flood{next: first, end: first + n})
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.apiKey)
	request.Header.Set("Content-Type", "application/x-ndjson")
	begun := time.Now()
	response, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines, refused := 0, 0
	buf := make([]byte, 64<<10)
	for err == nil {
		var m int
		m, err = response.Body.Read(buf)
		lines += bytes.Count(buf[:m], []byte("\n"))
		refused += bytes.Count(buf[:m], []byte(`"error"`))
	}
	took := time.Since(begun)
	if err != io.EOF || lines != n || refused > n/1000 {
		s.t.Fatalf("%d lines for %d cards, %d refused: %v", lines, n, refused, err)
	}
	return float64(n) / took.Seconds()
}

// resident is the appliance's resident memory in MiB.
func (s *system) resident() float64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.serve.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		s.t.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

func (s *system) manyConnections() *http.Client {
	client := s.newClient()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	return client
}

var nextCard atomic.Int64

// singleRate sends cards one by one over 64 connections, for two seconds, and returns the answers in a second.
func (s *system) singleRate(client *http.Client, url string) float64 {
	s.t.Helper()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	var answered, wrong atomic.Int64
	var senders sync.WaitGroup
	begun := time.Now()
	for range 64 {
		senders.Go(func() {
			for ctx.Err() == nil {
				n := 2_000_000_000 + int(nextCard.Add(1))
				request, err := http.NewRequest(http.MethodPost, url+"/v1/tokens", strings.NewReader(aCard(spread(n))))
				if err != nil {
					s.t.Error(err)
					return
				}
				request.Header.Set("Authorization", "Bearer "+s.apiKey)
				request.Header.Set("Content-Type", "application/json")
				response, err := client.Do(request)
				if err != nil {
					wrong.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode/100 != 2 {
					wrong.Add(1)
				}
				answered.Add(1)
			}
		})
	}
	senders.Wait()
	if n := wrong.Load(); n > answered.Load()/1000 {
		s.t.Errorf("%d of %d requests failed", n, answered.Load())
	}
	return float64(answered.Load()) / time.Since(begun).Seconds()
}
