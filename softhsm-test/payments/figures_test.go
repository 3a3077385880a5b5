//go:build bench

// Package payments_test measures whole payments: the built program serves, with its counterparties as another process, and this one
// is the shop and all shoppers.
//
// A payment is created by API, its page is fetched, the card is posted sealed, becomes a token, is authenticated without a
// challenge and sold by ISO 8583; it counts when the shopper is back at the shop with a signed address and the shop
// has a signed webhook. Every card is another one. Connections are kept.
//
// Counterparties and shop use the same processors, so a rate says less than the CPU time of each process for a payment,
// which is told beside it.
package payments_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/softhsm-test/figures"
)

const (
	inFlight = 64
	rounds   = 3
	alone    = 200 // payments one after the other
)

// TestFigures is what `make bench` runs. BENCH_PAYMENTS says how many payments are made at 64 in flight (3000), in the
// course of which memory is looked at; BENCH_BASE names another built program against which this one is held, in turns.
func TestFigures(t *testing.T) {
	total := 3000
	if text := os.Getenv("BENCH_PAYMENTS"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if base := os.Getenv("BENCH_BASE"); base != "" {
		against(t, start(t, base), start(t, build(t)), total)
		return
	}
	s := start(t, build(t))
	s.load(t, total/10, inFlight, false) // connections, caches and tables are warm
	var m measured
	var memory []figures.Figure
	first := [2]float64{}
	done := 0
	for _, point := range []int{total / 10, total / 2, total} {
		m.add(s.load(t, point-done, inFlight, false))
		done = point
		now := [2]float64{s.serve.resident(t), s.live(t)}
		if first[0] == 0 {
			first = now
			continue
		}
		memory = append(memory, figures.Against(fmt.Sprintf("resident memory after %d payments, to that after %d", point, total/10), now[0], first[0], "MiB", "<= 1.25"),
			figures.Against(fmt.Sprintf("live Go heap after %d payments, to that after %d", point, total/10), now[1], first[1], "MiB", "<= 1.25"))
	}
	scripted := s.load(t, total/10, inFlight, true)
	single := s.load(t, alone, 1, false)
	if booked, want := s.captured(t), s.made; booked != want {
		t.Errorf("the acquirer has booked %d sales of %d payments", booked, want)
	}
	list := append(m.figures("64 in flight"), memory...)
	list = append(list, figures.Alone("the same with the issuer's 3DS Method", scripted.rate(), "payments/s", ""))
	list = append(list, figures.Alone("one in flight, p50", single.latency(50), "ms", "<= 15"), figures.Alone("one in flight, p95", single.latency(95), "ms", ""),
		figures.Alone("one in flight, CPU of serve", single.serve(), "ms/payment", ""))
	figures.Report(t, list...)
}

// against measures two programs in turns.
func against(t *testing.T, base, now *system, total int) {
	var m [2][]measured
	for i := range rounds + 1 {
		for j, s := range []*system{base, now} {
			if round := s.load(t, total/rounds, inFlight, false); i > 0 { // the first warms
				m[j] = append(m[j], round)
			}
		}
	}
	var single [2][]measured
	for range rounds {
		for j, s := range []*system{base, now} {
			single[j] = append(single[j], s.load(t, alone, 1, false))
		}
	}
	compare := func(name, unit string, m [2][]measured, of func(measured) float64) figures.Figure {
		return figures.Against(name+", to BENCH_BASE", medianOf(m[1], of), medianOf(m[0], of), unit, "")
	}
	figures.Report(t, compare("64 in flight", "payments/s", m, measured.rate),
		compare("64 in flight, p50", "ms", m, func(m measured) float64 { return m.latency(50) }),
		compare("64 in flight, p95", "ms", m, func(m measured) float64 { return m.latency(95) }),
		compare("CPU of serve", "ms/payment", m, measured.serve),
		compare("CPU of the counterparties", "ms/payment", m, measured.counterparties),
		compare("CPU of shop and shoppers", "ms/payment", m, measured.driver),
		compare("allocated by serve", "KiB/payment", m, measured.allocated),
		compare("one in flight, p50", "ms", single, func(m measured) float64 { return m.latency(50) }))
}

func medianOf(all []measured, of func(measured) float64) float64 {
	values := make([]float64, len(all))
	for i, m := range all {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// measured is what some payments took.
type measured struct {
	payments int
	took     time.Duration
	times    []time.Duration
	cpu      [3]time.Duration // of serve, its counterparties, and this process
	bytes    float64          // allocated by serve
}

func (m *measured) add(more measured) {
	m.payments += more.payments
	m.took += more.took
	m.times = append(m.times, more.times...)
	for i := range m.cpu {
		m.cpu[i] += more.cpu[i]
	}
	m.bytes += more.bytes
}

func (m measured) rate() float64           { return float64(m.payments) / m.took.Seconds() }
func (m measured) serve() float64          { return m.each(0) }
func (m measured) counterparties() float64 { return m.each(1) }
func (m measured) driver() float64         { return m.each(2) }
func (m measured) allocated() float64      { return m.bytes / float64(m.payments) / 1024 }

// each is the CPU time of a process for one payment, in ms.
func (m measured) each(process int) float64 {
	return float64(m.cpu[process].Microseconds()) / 1000 / float64(m.payments)
}

// latency is that of a whole payment in ms: what the counterparties and the shop take is in it.
func (m measured) latency(percent int) float64 {
	sorted := slices.Sorted(slices.Values(m.times))
	return float64(sorted[(len(sorted)-1)*percent/100].Microseconds()) / 1000
}

func (m measured) figures(name string) []figures.Figure {
	return []figures.Figure{
		figures.Alone("whole payments, "+name, m.rate(), "payments/s", ">= 300"),
		figures.Alone(name+", p50", m.latency(50), "ms", ""),
		figures.Alone(name+", p95", m.latency(95), "ms", ""),
		figures.Alone("CPU of serve", m.serve(), "ms/payment", ""),
		figures.Alone("CPU of the counterparties", m.counterparties(), "ms/payment", ""),
		figures.Alone("CPU of shop and shoppers", m.driver(), "ms/payment", ""),
		figures.Alone("allocated by serve", m.allocated(), "KiB/payment", ""),
	}
}

// load makes n payments, so many at a time.
func (s *system) load(t *testing.T, n, atATime int, scripted bool) measured {
	t.Helper()
	sealers, err := s.sealers(n)
	if err != nil {
		t.Fatal(err)
	}
	clients := make([]*client, atATime)
	for i := range clients {
		if clients[i], err = s.dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = clients[i].conn.Close() }()
	}
	m := measured{payments: n, times: make([]time.Duration, n)}
	cpu, bytes := s.cpu(t), s.metric(t, "go_memstats_alloc_bytes_total")
	var next atomic.Int64
	var failed sync.Map
	var shoppers sync.WaitGroup
	begun := time.Now()
	for _, c := range clients {
		shoppers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				from := time.Now()
				if err := c.pay(s.made+i, sealers[i], scripted); err != nil {
					failed.Store(i, err)
					return
				}
				m.times[i] = time.Since(from)
			}
		})
	}
	shoppers.Wait()
	m.took = time.Since(begun)
	for i, now := range s.cpu(t) {
		m.cpu[i] = now - cpu[i]
	}
	m.bytes = s.metric(t, "go_memstats_alloc_bytes_total") - bytes
	s.made += n
	failed.Range(func(_, err any) bool { t.Error(err); return true })
	if err := s.shop.err(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	return m
}

func (s *system) cpu(t *testing.T) [3]time.Duration {
	t.Helper()
	return [3]time.Duration{s.serve.used(t), s.simulator.used(t), own(t)}
}
