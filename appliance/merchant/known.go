package merchant

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
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
	caller api.Caller
	at     time.Time
}

func (k *knownKeys) get(key string, now time.Time) (caller api.Caller, epoch uint64, ok bool) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.byHash[hash]
	return known.caller, k.epoch, ok && now.Sub(known.at) < knownFor
}

func (k *knownKeys) put(key string, caller api.Caller, epoch uint64, now time.Time) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch != k.epoch {
		return
	}
	if k.byHash == nil || len(k.byHash) >= maxKnown {
		k.byHash = make(map[[sha256.Size]byte]knownKey)
	}
	k.byHash[hash] = knownKey{caller, now}
}

func (k *knownKeys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byHash = nil
	k.epoch++
}
