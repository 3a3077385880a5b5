package hsm

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// session is one session of the module and its view of the keys. One worker uses it.
type session struct {
	handle     pkcs11.SessionHandle
	generation uint64 // of the gate

	mu   sync.Mutex  // held during each use
	dead atomic.Bool // the module gave the handle to another session, so it has forgotten this one

	epoch uint64 // the login under which keys were resolved
	keys  map[sighting]pkcs11.ObjectHandle
}

// use runs f on the session, which nobody else uses meanwhile.
func (s *session) use(f func(*session) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Load() {
		return pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)
	}
	return f(s)
}

// sessions knows which handles are in use. A module that has forgotten a session may give its number again: whoever
// went on with the old one would feed blocks to somebody else's key, or close somebody else's session.
type sessions struct {
	mu   sync.Mutex
	live map[pkcs11.SessionHandle]*session
	// unclosed are given up, but the device was away when they were to be closed: they would count against its limit.
	unclosed map[pkcs11.SessionHandle]bool
}

func (o *sessions) forgetAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live = make(map[pkcs11.SessionHandle]*session)
	o.unclosed = make(map[pkcs11.SessionHandle]bool)
}

func (o *sessions) isDead(s *session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live[s.handle] != s
}

// openSession opens a session; the caller is inside the gate, or holds it shut. Opening and closing take turns, so
// that a number is never given out and closed at the same time.
func (e *Engine) openSession(generation uint64) (*session, error) {
	return e.openBeside(nil, generation)
}

// openBeside is openSession within the use of another session.
func (e *Engine) openBeside(inUse *session, generation uint64) (*session, error) {
	s := &session{generation: generation, epoch: e.login.epoch.Load(), keys: make(map[sighting]pkcs11.ObjectHandle)}
	old, err := e.opened.register(s, func() (pkcs11.SessionHandle, error) {
		for handle := range e.opened.unclosed {
			e.end(handle)
		}
		return e.module.OpenSession(e.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	})
	if err != nil {
		return nil, err
	}
	if old != nil && old != inUse { // a call that is on its way with the number must be over before the number means something else
		old.mu.Lock()
		old.mu.Unlock() //nolint:staticcheck // empty on purpose: only the waiting matters
	}
	return s, nil
}

// register opens a session, and returns the one that had its number, which is dead.
func (o *sessions) register(s *session, open func() (pkcs11.SessionHandle, error)) (old *session, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.handle, err = open(); err != nil {
		return nil, err
	}
	if old = o.live[s.handle]; old != nil {
		old.dead.Store(true)
	}
	o.live[s.handle] = s
	delete(o.unclosed, s.handle)
	return old, nil
}

// closeSession closes a session, unless the module has forgotten it already.
func (e *Engine) closeSession(s *session) {
	o := &e.opened
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.live[s.handle] == s {
		delete(o.live, s.handle)
		e.end(s.handle)
	}
}

// end closes a session that nobody uses, or leaves it for later. The lock of the sessions is held.
func (e *Engine) end(handle pkcs11.SessionHandle) {
	err := e.module.CloseSession(handle)
	if err == nil || isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED) {
		delete(e.opened.unclosed, handle)
		return
	}
	e.opened.unclosed[handle] = true
}
