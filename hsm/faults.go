package hsm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// remedy is what the engine does about an error.
type remedy int

const (
	// nothing: the error is the caller's; no session is at fault.
	nothing remedy = iota
	// newSession closes the session and opens another; the call is made once more.
	newSession
	// newHandles looks the keys up again; the call is made once more.
	newHandles
	// newLogin logs in once for all waiters; the call is made once more.
	newLogin
	// secondOpinion closes the session and has the supervisor ask the device whether it is there at all. Where it is
	// not, or after the third such error in a row of one pool, the module is started again.
	secondOpinion
	// countToThree closes the session; the third such error in a row starts the module again.
	countToThree
	// rest closes the session and uses fewer for a while: the device has no room.
	rest
	// end stops the engine for good.
	end
)

// remedies is the whole fault table. A code that is not here is the caller's error, and costs the session: what state
// it was left in is not known.
var remedies = map[uint]remedy{
	pkcs11.CKR_SESSION_HANDLE_INVALID: newSession,
	pkcs11.CKR_SESSION_CLOSED:         newSession,
	pkcs11.CKR_OPERATION_ACTIVE:       newSession,
	// A kept-open operation is gone: it is opened again with a new session.
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: newSession,

	pkcs11.CKR_OBJECT_HANDLE_INVALID: newHandles,
	pkcs11.CKR_KEY_HANDLE_INVALID:    newHandles,

	pkcs11.CKR_USER_NOT_LOGGED_IN: newLogin,

	pkcs11.CKR_DEVICE_ERROR:             secondOpinion,
	pkcs11.CKR_DEVICE_REMOVED:           secondOpinion,
	pkcs11.CKR_TOKEN_NOT_PRESENT:        secondOpinion,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:     secondOpinion,
	pkcs11.CKR_SLOT_ID_INVALID:          secondOpinion,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: secondOpinion,

	pkcs11.CKR_GENERAL_ERROR:   countToThree,
	pkcs11.CKR_FUNCTION_FAILED: countToThree,
	// Signatures are asked for again with a larger buffer. All else has the length that it must have.
	pkcs11.CKR_BUFFER_TOO_SMALL: countToThree,

	pkcs11.CKR_DEVICE_MEMORY: rest,
	pkcs11.CKR_HOST_MEMORY:   rest,
	pkcs11.CKR_SESSION_COUNT: rest,

	pkcs11.CKR_PIN_INCORRECT: end,
	pkcs11.CKR_PIN_LOCKED:    end,
}

// repeats reports whether the call may be made once more after the remedy: the module has refused it before it did
// anything.
func (r remedy) repeats() bool { return r == newSession || r == newHandles || r == newLogin }

// lengthError means that the module returned another number of bytes than the mechanism gives.
type lengthError struct {
	function  string
	got, want int
}

func (e *lengthError) Error() string {
	return fmt.Sprintf("hsm: %s returned %d bytes where %d are due", e.function, e.got, e.want)
}

// remedyFor reads the table.
func remedyFor(err error) remedy {
	if code, ok := errors.AsType[pkcs11.Error](err); ok {
		return remedies[uint(code)]
	}
	if _, ok := errors.AsType[*lengthError](err); ok {
		return countToThree
	}
	if errors.Is(err, ErrPIN) {
		return end
	}
	return nothing
}

// faults counts errors of the module.
type faults struct {
	inARow atomic.Int32 // of remedy countToThree, since the last success

	mu     sync.Mutex
	byCode map[string]uint64
}

// wrongLength is the name under which a [lengthError] is counted.
const wrongLength = "wrong length"

func (f *faults) count(err error) {
	name := wrongLength
	if code, ok := errors.AsType[pkcs11.Error](err); ok {
		name = codeName(code)
	} else if _, ok := errors.AsType[*lengthError](err); !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byCode == nil {
		f.byCode = make(map[string]uint64)
	}
	f.byCode[name]++
}

func (f *faults) byName() map[string]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	copied := make(map[string]uint64, len(f.byCode))
	for name, n := range f.byCode {
		copied[name] = n
	}
	return copied
}

// codeName returns, say, "CKR_DEVICE_ERROR"; a vendor's own code is a number.
func codeName(code pkcs11.Error) string {
	text := code.Error() // "pkcs11: 0x30: CKR_DEVICE_ERROR"
	if at := strings.LastIndex(text, ": "); at >= 0 && strings.HasPrefix(text[at+2:], "CKR_") {
		return text[at+2:]
	}
	return fmt.Sprintf("0x%x", uint(code))
}

// inARow is how many doubtful errors in a row start the module again.
const inARow = 3

// isDeviceFault reports whether an error says nothing of what was asked for, but of the session, the login or the device.
func isDeviceFault(err error) bool {
	r := remedyFor(err)
	return r.repeats() || r == secondOpinion || r == rest
}

// treat counts an error of the module, sets off its remedy, and returns the error as callers see it. epoch is the login
// under which the call was made.
func (w *worker) treat(err error, epoch uint64) (remedy, error) {
	e := w.pool.e
	e.faults.count(err)
	r := remedyFor(err)
	switch r {
	case newLogin:
		if loginErr := e.logIn(epoch); loginErr != nil {
			return e.treatLogin(loginErr)
		}
	case secondOpinion:
		e.trip(w.pool.struck.Add(1) >= inARow)
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case countToThree:
		if e.faults.inARow.Add(1) >= inARow {
			e.trip(true)
		}
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case rest:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case end:
		e.fail(err)
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case nothing, newSession, newHandles:
	}
	return r, err
}

// treatLogin is treat for an error of the login itself, after which the call is not repeated.
func (e *Engine) treatLogin(err error) (remedy, error) {
	if errors.Is(err, ErrPIN) {
		e.fail(err)
		return end, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	e.faults.count(err)
	e.trip(false)
	return secondOpinion, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func isCode(err error, codes ...uint) bool {
	code, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if uint(code) == c {
			return true
		}
	}
	return false
}
