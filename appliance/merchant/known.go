package merchant

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
)

const (
	// knownFor is how long a key that was recognised is not looked up again: a gateway's requests come by the thousand, and
	// each would cost a call into the HSM and one into the database.
	knownFor = 5 * time.Second
	// maxKnown bounds the keys remembered.
	maxKnown = 1024
)

// knownKeys are the API keys recognised lately, by their SHA-256: a key has 256 random bits, so that its hash tells
// nothing of it. A key that this process revokes is forgotten at once; nothing else revokes one while it runs.
type knownKeys struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]knownKey
	epoch  uint64 // grows when keys are forgotten: what was looked up before is not remembered after
}

type knownKey struct {
	row    store.APIKey
	caller api.Caller // without its origin
	allow  []netip.Prefix
	at     time.Time
}

// allows reports whether the key may be used from an address.
func (k knownKey) allows(origin string) bool {
	if len(k.allow) == 0 {
		return true
	}
	addr, err := netip.ParseAddr(origin)
	return err == nil && slices.ContainsFunc(k.allow, func(p netip.Prefix) bool { return p.Contains(addr.Unmap().WithZone("")) })
}

func (k *knownKeys) get(key string, now time.Time) (known knownKey, epoch uint64, ok bool) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok = k.byHash[hash]
	return known, k.epoch, ok && now.Sub(known.at) < knownFor
}

func (k *knownKeys) put(key string, known knownKey, epoch uint64, now time.Time) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch != k.epoch {
		return
	}
	if k.byHash == nil || len(k.byHash) >= maxKnown {
		k.byHash = make(map[[sha256.Size]byte]knownKey)
	}
	known.at = now
	k.byHash[hash] = known
}

func (k *knownKeys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byHash = nil
	k.epoch++
}
