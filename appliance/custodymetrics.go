package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/finterra/finpay/pci/custody"
)

// custodyCollector shows [custody.Stats].
type custodyCollector struct{ cards *custody.Store }

var (
	custodyCards     = prometheus.NewDesc("finpay_custody_cards", "Cards held.", nil, nil)
	custodyCapacity  = prometheus.NewDesc("finpay_custody_capacity", "Cards that may be held at once; more get 503 with Retry-After.", nil, nil)
	custodyOldest    = prometheus.NewDesc("finpay_custody_oldest_seconds", "Age of the oldest card held; 0 where there is none.", nil, nil)
	custodyTaken     = prometheus.NewDesc("finpay_custody_taken_total", "Cards taken.", nil, nil)
	custodyDestroyed = prometheus.NewDesc("finpay_custody_destroyed_total",
		"Cards that have ended: used by their payment, at their deadline, lost with the HSM's session; failed are attempts that are made again.", []string{"outcome"}, nil)
	custodyFull = prometheus.NewDesc("finpay_custody_full_total", "Cards refused because custody was full.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (c custodyCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{custodyCards, custodyCapacity, custodyOldest, custodyTaken, custodyDestroyed, custodyFull} {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector].
func (c custodyCollector) Collect(metrics chan<- prometheus.Metric) {
	s := c.cards.Stats()
	gauge := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	counter := func(d *prometheus.Desc, value uint64, outcome ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), outcome...)
	}
	gauge(custodyCards, float64(s.Held))
	gauge(custodyCapacity, float64(s.Capacity))
	gauge(custodyOldest, s.Oldest.Seconds())
	counter(custodyTaken, s.Taken)
	counter(custodyFull, s.Full)
	counter(custodyDestroyed, s.Used, "used")
	counter(custodyDestroyed, s.Expired, "deadline")
	counter(custodyDestroyed, s.Lost, "lost")
	counter(custodyDestroyed, s.Failed, "failed")
}
