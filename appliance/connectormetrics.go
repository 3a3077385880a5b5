package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/finterra/finpay/pci/acquiring"
)

// connectorCollector shows how the connectors stand.
type connectorCollector struct{ a *appliance }

var (
	connectorUp    = prometheus.NewDesc("finpay_connector_up", "1 while the connector could sell: its line is signed on, or its processor has answered the last time.", []string{"connector"}, nil)
	connectorSales = prometheus.NewDesc("finpay_connector_sales_total", "Sales and authorizations by how they ended: approved, declined, unsent or unknown.", []string{"connector", "outcome"}, nil)
	connectorLate  = prometheus.NewDesc("finpay_connector_late_total", "Answers that came after their request had been given up (iso8583).", []string{"connector"}, nil)
)

// Describe implements [prometheus.Collector].
func (c connectorCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectorUp, connectorSales, connectorLate} {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector].
func (c connectorCollector) Collect(metrics chan<- prometheus.Metric) {
	for i, route := range c.a.routes.Routes() {
		metrics <- prometheus.MustNewConstMetric(connectorUp, prometheus.GaugeValue, number(route.Healthy()), route.Name)
		for outcome, n := range route.Outcomes() {
			metrics <- prometheus.MustNewConstMetric(connectorSales, prometheus.CounterValue, float64(n), route.Name, string(outcome))
		}
		if l, ok := c.a.lines[i].(*acquiring.Connector); ok {
			metrics <- prometheus.MustNewConstMetric(connectorLate, prometheus.CounterValue, float64(l.Stats().Late), route.Name)
		}
	}
}
