// Package hsm is the appliance's keys: a PKCS#11 module, its sessions, and what is done with them.
//
// An [Engine] owns one module and one hsm token. It logs in once and keeps that login; every call into the module is
// made by a worker of a fixed number, with a session of its own, while the caller waits as long as its context says.
// On it stand the key operations: [Signer] (ECDSA, Ed25519), [MAC] (HMAC), [BlockCipher] (AES blocks, for
// format-preserving encryption), [AEAD] and [KMSClient] (for Tink), [KeyExchanger] (ECDH, for HPKE) and [Objects] (byte
// strings kept as session objects) or [Sealed] (encrypted under a session key). What vendors do otherwise than the standard is a [Profile].
//
// # What is promised
//
// Private and secret key material never enters this process. No signature leaves that does not verify. The PIN is
// tried once per login, and never again after it was refused. When the device is away, calls fail with
// [ErrUnavailable] until it is back, and the engine brings it back by itself. What a fault leads to is one table in
// faults.go.
//
// # What is not
//
// A call inside the vendor's library cannot be cancelled. A caller whose context ends leaves and gets
// [AbandonedError]; the call goes on. One that outlasts [Config.CallLimit] ends the engine: see [Engine.Failed].
// The package knows nothing of cards.
package hsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// Errors of this package; everything else that comes from a module is a [pkcs11.Error].
var (
	// ErrUnavailable means that the device cannot be used now. Nothing was done.
	ErrUnavailable = errors.New("hsm: the HSM is not available")
	// ErrLost means that a session object is gone with the session that held it.
	ErrLost = errors.New("hsm: the session object is gone")
	// ErrPIN means that the PIN was refused, or would be the last try that the hsm token allows. It is never tried
	// a second time: three tries lock the hsm token.
	ErrPIN = errors.New("hsm: the PIN was refused")
	// ErrStuck means that a call into the module did not return within [Config.CallLimit]. Nothing but a new process
	// helps: a hung call blocks C_Finalize.
	ErrStuck = errors.New("hsm: a call into the module does not return")
	// ErrClosed means that the engine, or the cipher, was closed.
	ErrClosed = errors.New("hsm: closed")
	// ErrNoToken means that the module shows no such hsm token.
	ErrNoToken = errors.New("hsm: no hsm token")
	// ErrNoKey means that the hsm token has no key of the wanted role and version.
	ErrNoKey = errors.New("hsm: no such key")
	// ErrNotAuthentic means that a ciphertext, or a wrapped key, was altered or is under another key.
	ErrNotAuthentic = errors.New("hsm: it was altered, or is under another key")
	// ErrDuplicateKey means that two keys carry the same id and label; which one is meant cannot be known.
	ErrDuplicateKey = errors.New("hsm: more than one key has this id and label")
)

// Defaults of [Config].
const (
	// DefaultSessions is the number of workers, and so of sessions, for signatures and MACs.
	DefaultSessions = 4
	// DefaultBlockSessions is how many sessions a [BlockCipher] may use where the provider gains from them.
	DefaultBlockSessions = 4
	// DefaultCallLimit is how long one call into the module may take.
	DefaultCallLimit = 30 * time.Second
)

// Config names a module and an hsm token.
type Config struct {
	Module   string // path of the PKCS#11 library
	Label    string // label of the hsm token, or its URI (RFC 7512)
	PIN      string // of the normal user
	Sessions int    // 0 means [DefaultSessions]
	// BlockSessions bounds the sessions of one [BlockCipher]; how many are used is measured. 0 means
	// [DefaultBlockSessions].
	BlockSessions int
	// CallLimit is how long one call into the module may take before the engine fails. 0 means [DefaultCallLimit].
	CallLimit time.Duration
	// InitArgument is passed to C_Initialize as its reserved argument; NSS softokn needs one.
	InitArgument string
	// Environment is set before the module is loaded; most vendors find their configuration by a variable.
	Environment map[string]string
	// Profile is what is particular to the provider.
	Profile Profile
	// Beside says that another process uses the hsm token: [Engine.Probe] makes nothing on it. SoftHSM2 loses objects where
	// two processes make some.
	Beside bool
	// SealedCustody says that a [Sealed] is used in place of [Objects]: [Engine.Probe] tries what it needs.
	SealedCustody bool
	Log           *slog.Logger
}

func (cfg *Config) defaults() {
	if cfg.Sessions == 0 {
		cfg.Sessions = DefaultSessions
	}
	if cfg.BlockSessions == 0 {
		cfg.BlockSessions = DefaultBlockSessions
	}
	if cfg.CallLimit == 0 {
		cfg.CallLimit = DefaultCallLimit
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
}

// Engine is a logged-in hsm token. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	module *pkcs11.Ctx
	direct *functionList

	turns  turns
	gate   gate
	slot   uint   // of this start of the module; written while the gate is shut
	label  string // of the hsm token
	login  login
	opened sessions
	faults faults
	clock  clock

	general *pool
	pools   pools

	trips    chan struct{}
	lost     atomic.Bool // the device is lost for certain
	looking  atomic.Bool // the supervisor is looking after it
	restarts atomic.Uint64
	ends     context.CancelFunc
	running  sync.WaitGroup // supervisor and watchdog

	over     chan struct{} // closed when the engine has failed or was closed
	overOnce sync.Once
	failed   chan struct{} // closed when the engine has failed
	failure  atomic.Pointer[error]

	shelf sync.RWMutex // the objects on the hsm token: see [Engine.alone]

	sightings sync.Mutex
	sighted   map[sighting]bool // keys that were found once
	missed    time.Time         // when the module was last started again for one of them
}

// Open loads the module, finds the hsm token by its label and logs in. The caller ends it with [Engine.Close].
func Open(cfg Config) (*Engine, error) {
	cfg.defaults()
	_, err := parseToken(cfg.Label)
	if err := errors.Join(err, cfg.Profile.Check(), cfg.Profile.checkPIN(cfg.PIN)); err != nil {
		return nil, err
	}
	module, err := load(cfg.Module, cfg.Environment)
	if err != nil {
		return nil, err
	}
	direct, err := functionListOf(module)
	if err != nil {
		module.Destroy()
		return nil, err
	}
	e := &Engine{cfg: cfg, module: module, direct: direct, trips: make(chan struct{}, 1), over: make(chan struct{}), failed: make(chan struct{}),
		sighted: make(map[sighting]bool)}
	if cfg.Profile.OneCall {
		e.turns.mu = new(sync.Mutex)
	}
	e.clock.beat = max(cfg.CallLimit/20, 10*time.Millisecond)
	if err := e.begin(); err != nil {
		_ = module.Finalize()
		module.Destroy()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.ends = cancel
	e.general = e.newPool(cfg.Sessions, poolKind{})
	e.running.Go(func() { e.supervise(ctx) })
	e.running.Go(func() { e.watch(ctx) })
	return e, nil
}

// closeTimeout bounds how long [Engine.Close] waits for calls under way.
const closeTimeout = 5 * time.Second

// Close ends all sessions and finalizes the module. Calls under way are waited for, up to five seconds: where one
// does not return, the module is left as it is and the error is [ErrStuck].
func (e *Engine) Close() error {
	e.ends()
	e.overOnce.Do(func() { close(e.over) })
	e.pools.closeAll()
	empty := e.gate.bar()
	if err := e.Err(); errors.Is(err, ErrStuck) {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		<-empty
		e.pools.wait()
		e.running.Wait()
		ended <- e.module.Finalize()
		e.module.Destroy()
	}()
	select {
	case err := <-ended:
		if err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
			return fmt.Errorf("hsm: finalize: %w", err)
		}
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("%w: it is left to the end of the process", ErrStuck)
	}
}

// Failed is closed when the engine cannot recover by itself: a call into the module hangs ([ErrStuck]), or the PIN
// was refused ([ErrPIN]). The process should end, and a supervisor start it again; [Engine.Err] says why.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// Err returns why the engine failed, or nil.
func (e *Engine) Err() error {
	if why := e.failure.Load(); why != nil {
		return *why
	}
	return nil
}

// fail ends the engine: waiting callers leave with an error, and no call is begun any more.
func (e *Engine) fail(why error) {
	if e.failure.CompareAndSwap(nil, &why) {
		e.cfg.Log.Error("the HSM's engine has failed", "label", e.cfg.Label, "error", why)
		e.gate.bar()
		close(e.failed)
		e.overOnce.Do(func() { close(e.over) })
		for _, p := range e.pools.all() {
			p.stop(e.whyOver())
			p.release(e.whyOver())
		}
	}
}

// whyOver is what callers are told once the engine is over.
func (e *Engine) whyOver() error {
	if why := e.Err(); why != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, why)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
}

// Health is what a monitor wants to know of an engine.
type Health struct {
	Up        bool
	Sessions  int               // workers, with a session each
	Resting   int               // workers that gave their session up because the device has no room for it
	Busy      int               // calls inside the module now
	Waiters   int               // callers that wait for a session
	Abandoned int               // calls inside the module whose callers have left
	Stuck     int               // calls inside the module for longer than [Config.CallLimit]
	Longest   time.Duration     // age of the oldest call inside the module, to a twentieth of [Config.CallLimit]
	Faults    map[string]uint64 // errors of the module, by the name of their code
	Logins    uint64            // times the PIN was given to the module
	Restarts  uint64            // times the module was initialized again
}

// Health reports the engine's state. It makes no call into the module.
func (e *Engine) Health() Health {
	h := Health{Up: e.gate.isOpen(), Faults: e.faults.byName(), Logins: e.login.tries.Load(), Restarts: e.restarts.Load()}
	for _, p := range e.pools.all() {
		h.Waiters += len(p.queue) + int(p.waiting.Load())
		h.Abandoned += int(p.abandoned.Load())
		h.Resting += int(p.resting.Load())
		for _, w := range p.workers {
			h.Sessions++
			if age, busy := w.stopwatch.age(&e.clock); busy {
				h.Busy++
				h.Longest = max(h.Longest, age)
				if age > e.cfg.CallLimit {
					h.Stuck++
				}
			}
		}
	}
	return h
}

// Ping finds out whether the device was lost: it makes a round trip, and looks for each key that was used so far.
func (e *Engine) Ping(ctx context.Context) error {
	known := e.known()
	return e.do(ctx, func(s *session) error {
		if _, err := e.module.GenerateRandom(s.handle, 1); err != nil {
			return err
		}
		for _, k := range known {
			if _, err := e.find(s, k.key, k.class); err != nil {
				return err
			}
		}
		return nil
	})
}

// Software reports whether the hsm token is known to be one in software: its keys are files.
func (e *Engine) Software(ctx context.Context) (bool, error) {
	var info pkcs11.TokenInfo
	err := e.do(ctx, func(*session) (err error) {
		info, err = e.module.GetTokenInfo(e.slot)
		return err
	})
	if err != nil {
		return false, err
	}
	about := strings.ToLower(info.ManufacturerID + " " + info.Model)
	for _, name := range []string{"soft", "mozilla", "nss", "kryoptic"} {
		if strings.Contains(about, name) {
			return true, nil
		}
	}
	return false, nil
}
