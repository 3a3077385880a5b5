// Package fault is a PKCS#11 module that goes wrong on demand: module/module.c, in front of a real one.
//
// [New] builds it and returns its [Control], which reaches the module in this process and in any that inherits this
// one's environment.
package fault

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:embed module/module.c
var source []byte

// Function is a function of PKCS#11 by its place in CK_FUNCTION_LIST (v2.40).
type Function int64

// Functions.
const (
	Every             Function = -1
	Initialize        Function = 0
	Finalize          Function = 1
	GetTokenInfo      Function = 6
	OpenSession       Function = 12
	CloseSession      Function = 13
	GetSessionInfo    Function = 15
	Login             Function = 18
	CreateObject      Function = 20
	DestroyObject     Function = 22
	GetAttributeValue Function = 24
	FindObjectsInit   Function = 26
	FindObjects       Function = 27
	EncryptInit       Function = 29
	Encrypt           Function = 30
	EncryptUpdate     Function = 31
	DecryptInit       Function = 33
	Decrypt           Function = 34
	SignInit          Function = 42
	Sign              Function = 43
	GenerateRandom    Function = 64

	functions = 68
)

// action is what goes wrong.
type action int64

const (
	returns action = iota + 1
	hangs
	length
	forget
	forgetAll
	logOut
	delay
)

// Fault is something that goes wrong with a call.
type Fault struct {
	action action
	value  int64
}

// Returns is a return code in place of the call.
func Returns(code uint) Fault { return Fault{returns, int64(code)} }

// Hangs keeps the call until [Control.Release].
func Hangs() Fault { return Fault{hangs, 0} }

// Length makes the call report n bytes more than it returned.
func Length(n int) Fault { return Fault{length, int64(n)} }

// Forgets ends the session of the call before it: the number is free for the next one.
func Forgets() Fault { return Fault{forget, 0} }

// ForgetsAll ends all sessions before the call, and with them the login.
func ForgetsAll() Fault { return Fault{forgetAll, 0} }

// LogsOut ends the login before the call.
func LogsOut() Fault { return Fault{logOut, 0} }

// Delays makes the call take longer, as one over a network does.
func Delays(by time.Duration) Fault { return Fault{delay, by.Microseconds()} }

// shared is what module/module.c calls control.
type shared struct {
	away, function, countdown, times, action, value atomic.Int64
	hits, held, release                             atomic.Int64
	forgetSession, forgetObject                     atomic.Int64
	inside, most, violations, sessions              atomic.Int64
	calls                                           [functions]atomic.Int64
}

// Control is the test's end of the module.
type Control struct {
	Module string // path of the module
	s      *shared
}

// New builds the module in front of the real one at path module. It ends with the test.
func New(t testing.TB, module string) *Control {
	t.Helper()
	dir := t.TempDir()
	code, built, control := filepath.Join(dir, "module.c"), filepath.Join(dir, "fault.so"), filepath.Join(dir, "control")
	if err := os.WriteFile(code, source, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-O1", "-shared", "-fPIC", "-pthread", "-o", built, code, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file, err := os.Create(control)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	size := int(unsafe.Sizeof(shared{}))
	if err := file.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAULT_MODULE", module)
	t.Setenv("FAULT_CONTROL", control)
	c := &Control{Module: built, s: (*shared)(unsafe.Pointer(&mem[0]))}
	t.Cleanup(c.Release) // a hanging call must not outlive its test; the mapping stays, for calls that are late
	return c
}

// Inject lets the n-th call of function from now go wrong, and times-1 more after it.
func (c *Control) Inject(function Function, n, times int, f Fault) {
	c.s.times.Store(0)
	c.s.hits.Store(0)
	c.s.release.Store(0)
	c.s.function.Store(int64(function))
	c.s.action.Store(int64(f.action))
	c.s.value.Store(f.value)
	c.s.countdown.Store(int64(n))
	c.s.times.Store(int64(times))
}

// Heal ends what [Control.Inject] began.
func (c *Control) Heal() { c.s.times.Store(0) }

// Away takes the device away, and brings it back.
func (c *Control) Away(away bool) {
	if away {
		c.s.away.Store(1)
	} else {
		c.s.away.Store(0)
	}
}

// Release lets hanging calls go on, and heals.
func (c *Control) Release() {
	c.Heal()
	c.Unblock()
}

// Unblock lets hanging calls go on into whatever goes wrong next.
func (c *Control) Unblock() { c.s.release.Store(1) }

// ForgetSession has the module forget a session by its number before the next call; ForgetObject a data object.
func (c *Control) ForgetSession(handle uint) { c.s.forgetSession.Store(int64(handle)) }

// ForgetObject has the module forget a data object by its number before the next call.
func (c *Control) ForgetObject(handle uint) { c.s.forgetObject.Store(int64(handle)) }

// Hits returns how many calls went wrong since [Control.Inject].
func (c *Control) Hits() int { return int(c.s.hits.Load()) }

// Held returns how many calls hang.
func (c *Control) Held() int { return int(c.s.held.Load()) }

// Violations returns how often the caller did what it must not: one session in two calls at once, finalizing under load.
func (c *Control) Violations() int { return int(c.s.violations.Load()) }

// Most returns how many calls were in the module at once, at most.
func (c *Control) Most() int { return int(c.s.most.Load()) }

// Sessions returns how many sessions are open.
func (c *Control) Sessions() int { return int(c.s.sessions.Load()) }

// Calls returns how often function was called.
func (c *Control) Calls(function Function) int { return int(c.s.calls[function].Load()) }

// AllCalls returns how many calls there were.
func (c *Control) AllCalls() (n int) {
	for i := range c.s.calls {
		n += int(c.s.calls[i].Load())
	}
	return n
}
