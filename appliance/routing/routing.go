// Package routing finds the connector that takes a payment.
//
// A [Router] has routes in order of preference. A route is a connector and the conditions under which it is used: brands,
// currencies, a range of amounts, merchants, sandbox or live. [Router.Candidates] returns those that serve all that a request
// needs, those of them first whose connector is healthy.
//
// # What is promised
//
// What follows a sale goes to the connector of that sale: [Router.Named] returns it and no other, whatever its conditions
// and its health are by now. A name that is not configured any more is [ErrNotConfigured]; nothing stands in for it.
//
// # What is not
//
// Routing sends nothing and remembers nothing but counts. That a choice is committed before anything leaves, and that the
// next candidate is asked only where the one before has certainly sent nothing, is the caller's.
package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/finterra/finpay/pci"
)

// ErrNotConfigured means that there is no connector of that name.
var ErrNotConfigured = errors.New("routing: the connector is not configured")

// NotServedError says that no route serves a request, and what the one that came closest lacks.
type NotServedError struct {
	Lacks string // "sandbox", "merchant", "brand", "currency", "amount", or a capability as in [pci.Capabilities.Lacks]
}

func (e *NotServedError) Error() string {
	return "routing: no connector serves this; lacking: " + e.Lacks
}

// Connector sells, and does what may follow a sale. The outcome of a sale, authorization or refund is always set; its error
// says why where it is not an answer. A capture that it will never book is [pci.ErrRefused].
type Connector interface {
	Capabilities() pci.Capabilities
	// Healthy reports whether a sale would probably be answered now.
	Healthy() bool

	Sale(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error)
	Authorize(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error)
	Capture(ctx context.Context, request pci.CaptureRequest) (acknowledged bool, err error)
	Refund(ctx context.Context, request pci.RefundRequest) (pci.SaleResult, error)
	Reverse(ctx context.Context, request pci.ReversalRequest) (acknowledged bool, err error)
}

// Route is a connector and when it is used. Empty conditions do not narrow.
type Route struct {
	Name       string
	Type       string
	Sandbox    bool // for payments in which no money moves, and for no others
	Brands     []pci.Brand
	Currencies []pci.Currency
	// Min and Max bound the amount, both included. An amount in another currency is not within them.
	Min, Max  pci.Amount
	Merchants []string

	Connector
	outcomes *outcomes
}

// Request is a payment that seeks its connector.
type Request struct {
	Merchant string // its id
	Sandbox  bool
	Need     pci.Need
}

// Router is safe for concurrent use. Its routes do not change.
type Router struct {
	routes []*Route
}

// New returns a router over routes in order of preference.
func New(routes ...Route) (*Router, error) {
	r := &Router{}
	for _, route := range routes {
		if route.Name == "" || route.Connector == nil {
			return nil, errors.New("routing: a route has a name and a connector")
		}
		if _, err := r.Named(route.Name); err == nil {
			return nil, fmt.Errorf("routing: two connectors are named %q", route.Name)
		}
		route.outcomes = &outcomes{}
		route.Connector = counted{route.Connector, route.outcomes}
		r.routes = append(r.routes, &route)
	}
	return r, nil
}

// Routes returns all routes, in order of preference.
func (r *Router) Routes() []*Route { return slices.Clone(r.routes) }

// Named returns a route by the name that attempts keep.
func (r *Router) Named(name string) (*Route, error) {
	for _, route := range r.routes {
		if route.Name == name {
			return route, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNotConfigured, name)
}

// Candidates returns the routes that serve a request, in the order in which they are to be asked. Where none of them is
// healthy it is the first alone: it says for itself that nothing was sent. Where no route serves the request at all, the
// error is a [*NotServedError].
func (r *Router) Candidates(request Request) ([]*Route, error) {
	var healthy []*Route
	first, err := r.serving(request, func(route *Route) {
		if route.Healthy() {
			healthy = append(healthy, route)
		}
	})
	if err == nil && len(healthy) == 0 {
		healthy = []*Route{first}
	}
	return healthy, err
}

// Serves returns nil where some route serves a request, healthy or not, else a [*NotServedError].
func (r *Router) Serves(request Request) error {
	_, err := r.serving(request, func(*Route) {})
	return err
}

// serving calls each with the routes that serve a request and returns the first.
func (r *Router) serving(request Request, each func(*Route)) (first *Route, err error) {
	lacks, came := "connectors", -1
	for _, route := range r.routes {
		missing, at := route.lacks(request)
		switch {
		case missing != "" && at > came:
			lacks, came = missing, at
		case missing == "":
			if first == nil {
				first = route
			}
			each(route)
		}
	}
	if first == nil {
		return nil, &NotServedError{lacks}
	}
	return first, nil
}

// lacks names the first condition that a request does not meet, empty for none, and how many it met before.
func (r *Route) lacks(request Request) (condition string, met int) {
	need := request.Need
	for i, check := range []struct {
		ok   bool
		name string
	}{
		{r.Sandbox == request.Sandbox, "sandbox"},
		{in(request.Merchant, r.Merchants), "merchant"},
		{need.Brand == "" || in(need.Brand, r.Brands), "brand"},
		{in(need.Amount.Currency, r.Currencies), "currency"},
		{within(need.Amount, r.Min, r.Max), "amount"},
	} {
		if !check.ok {
			return check.name, i
		}
	}
	return r.Capabilities().Lacks(need), 5
}

func in[T comparable](value T, list []T) bool { return len(list) == 0 || slices.Contains(list, value) }

func within(amount, least, most pci.Amount) bool {
	if least != (pci.Amount{}) && (amount.Currency != least.Currency || amount.Minor < least.Minor) {
		return false
	}
	return most == (pci.Amount{}) || amount.Currency == most.Currency && amount.Minor <= most.Minor
}

// Outcomes returns how many sales and authorizations ended so, by this process.
func (r *Route) Outcomes() map[pci.SaleOutcome]uint64 {
	return map[pci.SaleOutcome]uint64{pci.Approved: r.outcomes.approved.Load(), pci.Refused: r.outcomes.refused.Load(),
		pci.Unsent: r.outcomes.unsent.Load(), pci.Unknown: r.outcomes.unknown.Load()}
}

type outcomes struct{ approved, refused, unsent, unknown atomic.Uint64 }

func (o *outcomes) count(outcome pci.SaleOutcome) {
	switch outcome {
	case pci.Approved:
		o.approved.Add(1)
	case pci.Refused:
		o.refused.Add(1)
	case pci.Unsent:
		o.unsent.Add(1)
	default:
		o.unknown.Add(1)
	}
}

// counted counts how sales end.
type counted struct {
	Connector
	outcomes *outcomes
}

// Sale implements [Connector].
func (c counted) Sale(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error) {
	result, err := c.Connector.Sale(ctx, request)
	c.outcomes.count(result.Outcome)
	return result, err
}

// Authorize implements [Connector].
func (c counted) Authorize(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error) {
	result, err := c.Connector.Authorize(ctx, request)
	c.outcomes.count(result.Outcome)
	return result, err
}
