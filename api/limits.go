package api

import (
	"container/list"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a token bucket: Burst requests at once, refilled with PerSecond.
type Rate struct {
	PerSecond float64
	Burst     int
}

// The limits that hold unless the configuration says otherwise.
var (
	// DefaultPerKey is far above what one shop's checkout needs, and keeps one merchant from starving the others.
	DefaultPerKey = Rate{PerSecond: 100, Burst: 200}
	// DefaultPerTokenKey is more than one machine serves: it keeps a client that runs wild from being the only one.
	DefaultPerTokenKey = Rate{PerSecond: 20_000, Burst: 40_000}
	// DefaultPerAddress lets a few dozen shoppers behind one address pay at once; a page that waits asks every 2 s.
	DefaultPerAddress = Rate{PerSecond: 10, Burst: 60}
	// DefaultFailedLogins stops guessing: a key has 128 random bits or more, so this only keeps the record of refusals short.
	DefaultFailedLogins = Rate{PerSecond: 0.2, Burst: 10}
)

// DefaultBuckets bounds the buckets of each kind; together they take a few megabytes.
const DefaultBuckets = 10_000

// Limits is how many requests are taken. Zero fields mean the defaults.
type Limits struct {
	PerKey       Rate // API requests of one key
	PerTokenKey  Rate // of which those about tokens
	PerAddress   Rate // requests without a key from one client address: checkout, checkpoint, this contract
	FailedLogins Rate // requests with a wrong key from one client address; when they are used up, right keys wait too
	Buckets      int  // most keys and addresses remembered; then the one longest unused is forgotten
}

func (l Limits) withDefaults() Limits {
	for _, r := range []struct{ rate, standard *Rate }{
		{&l.PerKey, &DefaultPerKey}, {&l.PerTokenKey, &DefaultPerTokenKey}, {&l.PerAddress, &DefaultPerAddress}, {&l.FailedLogins, &DefaultFailedLogins},
	} {
		if r.rate.PerSecond <= 0 || r.rate.Burst <= 0 {
			*r.rate = *r.standard
		}
	}
	if l.Buckets <= 0 {
		l.Buckets = DefaultBuckets
	}
	return l
}

// buckets are the token buckets of one kind, by key or address.
type buckets struct {
	name string
	rate Rate
	max  int
	now  func() time.Time

	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent *list.List // of *bucket, the latest used in front
}

type bucket struct {
	key     string
	limiter *rate.Limiter
}

func newBuckets(name string, r Rate, most int, now func() time.Time) *buckets {
	return &buckets{name: name, rate: r, max: most, now: now, byKey: make(map[string]*list.Element), recent: list.New()}
}

// of returns the bucket of key.
func (b *buckets) of(key string) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byKey[key]; ok {
		b.recent.MoveToFront(e)
		return e.Value.(*bucket).limiter
	}
	if b.recent.Len() >= b.max {
		oldest := b.recent.Back()
		b.recent.Remove(oldest)
		delete(b.byKey, oldest.Value.(*bucket).key)
	}
	made := &bucket{key: key, limiter: rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)}
	b.byKey[key] = b.recent.PushFront(made)
	return made.limiter
}

// take takes one request from a bucket and tells the client what is left, as draft-ietf-httpapi-ratelimit-headers
// has it. An empty bucket is [ErrRateLimit].
func (b *buckets) take(w http.ResponseWriter, key string) error {
	limiter, now := b.of(key), b.now()
	ok := limiter.AllowN(now, 1)
	left := max(0, limiter.TokensAt(now))
	full := (float64(b.rate.Burst) - left) / b.rate.PerSecond
	w.Header().Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", b.name, b.rate.Burst, wholeSeconds(float64(b.rate.Burst)/b.rate.PerSecond)))
	w.Header().Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", b.name, int(left), wholeSeconds(full)))
	if !ok {
		return b.refusal(left)
	}
	return nil
}

// check is [ErrRateLimit] when a bucket is empty; it takes nothing.
func (b *buckets) check(key string) error {
	if left := b.of(key).TokensAt(b.now()); left < 1 {
		return b.refusal(left)
	}
	return nil
}

func (b *buckets) refusal(left float64) *Problem {
	p := *ErrRateLimit
	p.RetryAfter = time.Duration(wholeSeconds((1-left)/b.rate.PerSecond)) * time.Second
	return &p
}

func wholeSeconds(s float64) int { return max(1, int(math.Ceil(s))) }

// limited lets a client address through as often as its bucket says.
func (s *server) limited(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.perAddress.take(w, network(originOf(r))); err != nil {
			return err
		}
		return next(w, r)
	}
}

// network returns whom an address stands for: one host in IPv4, a /64 in IPv6, where one customer has at least that
// many addresses (RFC 6177).
func network(origin string) string {
	addr, err := netip.ParseAddr(origin)
	if err != nil {
		return origin
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}
