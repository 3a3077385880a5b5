package hsm

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

func load(path string, environment map[string]string) (*pkcs11.Ctx, error) {
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("hsm: set %s: %w", name, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("hsm: PKCS#11 module %s cannot be read; install the provider or correct hsm.module: %w", path, err)
	}
	module := pkcs11.New(path)
	if module == nil {
		return nil, fmt.Errorf("hsm: %s is not a PKCS#11 module of this machine's architecture", path)
	}
	return module, nil
}

// begin initializes the module, finds the hsm token and logs in. The gate is shut, and is open after success.
func (e *Engine) begin() error {
	if err := initialize(e.module, e.cfg); err != nil {
		return err
	}
	slot, label, err := findSlot(e.module, e.cfg.Label)
	if err != nil {
		return err
	}
	e.slot, e.label = slot, label
	e.opened.forgetAll()
	if err := e.logIn(0); err != nil {
		return err
	}
	e.faults.inARow.Store(0)
	e.gate.reopen()
	return nil
}

func initialize(module *pkcs11.Ctx, cfg Config) error {
	options := []pkcs11.InitializeOption{}
	if cfg.InitArgument != "" {
		argument, free := cString(cfg.InitArgument)
		defer free()
		options = append(options, pkcs11.InitializeWithReserved(argument))
	}
	if err := module.Initialize(options...); err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return fmt.Errorf("hsm: initialize %s: %w%s", cfg.Module, err, missingFiles(cfg.Environment))
	}
	return nil
}

// missingFiles names what a module was told to read and cannot: all that SoftHSM2 says of it is GENERAL_ERROR.
func missingFiles(environment map[string]string) (hint string) {
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if value := environment[name]; filepath.IsAbs(value) {
			if _, err := os.Stat(value); err != nil {
				hint += fmt.Sprintf("; %s names %s, which cannot be read", name, value)
			}
		}
	}
	return hint
}

// findSlot finds an hsm token by its label or URI (see [parseToken]), and returns its label too: slot numbers change from
// start to start. None is [ErrNoToken].
func findSlot(module *pkcs11.Ctx, token string) (slot uint, label string, err error) {
	name, err := parseToken(token)
	if err != nil {
		return 0, "", err
	}
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, "", fmt.Errorf("hsm: list slots: %w", err)
	}
	found := 0
	var seen []string
	for _, one := range slots {
		info, err := module.GetTokenInfo(one)
		if err != nil {
			continue // an unreadable neighbour is not ours
		}
		seen = append(seen, fmt.Sprintf("%q", padded(info.Label)))
		if name.matches(info) {
			found++
			slot, label = one, padded(info.Label)
		}
	}
	switch found {
	case 1:
		return slot, label, nil
	case 0:
		return 0, "", fmt.Errorf("%w is labelled %q; the module shows %s", ErrNoToken, token, orNone(seen))
	default:
		return 0, "", fmt.Errorf("hsm: %d hsm tokens are labelled %q; name one by a URI with its serial number (pkcs11:token=…;serial=…)", found, token)
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// login is the state of being logged in, which all sessions of a module share.
type login struct {
	mu     sync.Mutex
	keeper *session      // holds the login; runs nothing but the supervisor's questions
	epoch  atomic.Uint64 // grows with each login: key handles of an earlier one are dead
	tries  atomic.Uint64 // times the PIN was given to the module
}

// logIn gives the PIN to the module, unless somebody has done so since the caller read the epoch: one login serves
// all who need it.
func (e *Engine) logIn(seen uint64) error {
	l := &e.login
	l.mu.Lock()
	defer l.mu.Unlock()
	if seen != 0 && seen != l.epoch.Load() {
		return nil
	}
	if err := e.Err(); err != nil {
		return err // a refused PIN is not tried again
	}
	if err := e.guardPIN(); err != nil {
		return err
	}
	err := e.logInOn(l.keeper)
	if isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED) {
		e.closeSession(l.keeper)
		l.keeper = nil
		err = e.logInOn(nil)
	}
	if err != nil {
		return err
	}
	l.epoch.Add(1)
	return nil
}

// guardPIN keeps the engine from spending the last try of a PIN.
func (e *Engine) guardPIN() error {
	info, err := e.module.GetTokenInfo(e.slot)
	if err != nil {
		return fmt.Errorf("hsm: read the hsm token %q: %w", e.cfg.Label, err)
	}
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w by hsm token %q: it is locked; unlock it with the vendor's tool", ErrPIN, e.cfg.Label)
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("%w: hsm token %q allows one last try, which is left to a person: log in once with the vendor's tool", ErrPIN, e.cfg.Label)
	}
	return nil
}

func (e *Engine) logInOn(keeper *session) error {
	if keeper == nil || e.opened.isDead(keeper) {
		var err error
		if keeper, err = e.openSession(0); err != nil {
			return fmt.Errorf("hsm: open a session on %q: %w", e.cfg.Label, err)
		}
		e.login.keeper = keeper
	}
	e.login.tries.Add(1)
	err := e.module.Login(keeper.handle, e.cfg.Profile.userType(), e.cfg.PIN)
	switch {
	case err == nil || isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED):
		return fmt.Errorf("%w by hsm token %q (%w)", ErrPIN, e.cfg.Label, err)
	default:
		return fmt.Errorf("hsm: log in to %q: %w", e.cfg.Label, err)
	}
}

// loggedIn asks the module whether a session sees the login: where it was lost without a word, private keys are simply
// not found.
func (e *Engine) loggedIn(s *session) (bool, error) {
	info, err := e.module.GetSessionInfo(s.handle)
	if err != nil {
		return false, err
	}
	return info.State == cksROUser || info.State == cksRWUser, nil
}

// Session states of PKCS#11 v2.40, section 3.3, which the binding lacks.
const (
	cksROUser = 1
	cksRWUser = 3
)
