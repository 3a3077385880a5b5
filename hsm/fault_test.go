package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"go.uber.org/goleak"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// callTimeout is the deadline of each call under load.
const callTimeout = 2 * time.Second

// resumeWithin is the promise: service is back by then after the device is.
const resumeWithin = 5 * time.Second

// faulty is an engine in front of a device that goes wrong on demand, with a key of each path, under load.
type faulty struct {
	t       *testing.T
	device  *fault.Control
	engine  *hsm.Engine
	cfg     hsm.Config
	signer  *hsm.Signer
	mac     *hsm.MAC
	aead    *hsm.AEAD
	blocks  *hsm.BlockCipher
	objects *hsm.Objects

	sum    []byte // of the message "load"
	cipher []byte // of 64 zero blocks

	mu   sync.Mutex
	held map[uint64]string // objects that must survive

	before goleak.Option // goroutines from before

	answers atomic.Int64
	wrong   atomic.Int64
}

// newFaulty opens the engine; adjust may change its settings.
func newFaulty(t *testing.T, adjust func(*hsm.Config)) *faulty {
	t.Helper()
	before := goleak.IgnoreCurrent()
	cfg := softhsmtest.Token(t)
	device := fault.New(t, cfg.Module)
	cfg.Module = device.Module
	if adjust != nil {
		adjust(&cfg)
	}
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{t: t, device: device, engine: engine, cfg: cfg, objects: engine.NewObjects(), held: make(map[uint64]string),
		before: before}
	if f.signer, err = engine.Signer(t.Context(), softhsmtest.Key(t, engine, ledger)); err != nil {
		t.Fatal(err)
	}
	f.mac = engine.MAC(softhsmtest.Key(t, engine, apikey))
	if f.sum, err = f.mac.Sum(t.Context(), []byte("load")); err != nil {
		t.Fatal(err)
	}
	f.aead = engine.AEAD(softhsmtest.Key(t, engine, kek))
	f.blocks = blockCipher(t, engine)
	f.cipher = make([]byte, 16*64)
	if err := f.blocks.EncryptBlocks(t.Context(), f.cipher, f.cipher); err != nil {
		t.Fatal(err)
	}
	return f
}

// close ends the engine and says what it has left behind.
func (f *faulty) close() {
	f.t.Helper()
	f.engine.OpenAndClose()                                                     // what could not be closed while the device was away is closed with the next one
	if n, most := f.device.Sessions(), f.engine.Health().Sessions+1; n > most { // one holds the login
		f.t.Errorf("%d sessions are open, want at most %d", n, most)
	}
	if err := f.engine.Close(); err != nil {
		f.t.Error(err)
	}
	if n := f.device.Violations(); n != 0 {
		f.t.Errorf("%d times a session was used twice at once, or the module finalized under load", n)
	}
	goleak.VerifyNone(f.t, f.before)
}

// load keeps all paths busy until the function that it returns is called.
func (f *faulty) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for range 3 {
		for name, path := range f.paths() {
			running.Go(func() {
				for ctx.Err() == nil {
					if err := f.once(path); err != nil {
						f.expected(name, err)
					}
				}
			})
		}
	}
	return func() { cancel(); running.Wait() }
}

// paths are the ways into the module; each checks its own answer.
func (f *faulty) paths() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"sign": f.signs, "mac": f.macs, "blocks": f.encrypts, "objects": f.keeps, "envelope": f.seals,
	}
}

func (f *faulty) once(path func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	begun := time.Now()
	err := path(ctx)
	if took := time.Since(begun); took > callTimeout+time.Second {
		f.t.Errorf("a caller was kept for %v", took)
	}
	if err == nil {
		f.answers.Add(1)
	}
	return err
}

// expected wants the errors that callers are promised.
func (f *faulty) expected(path string, err error) {
	if !errors.Is(err, hsm.ErrUnavailable) && !errors.Is(err, hsm.ErrLost) && !errors.Is(err, context.DeadlineExceeded) {
		f.t.Errorf("%s: %v", path, err)
	}
}

func (f *faulty) isWrong(path string) {
	f.wrong.Add(1)
	f.t.Errorf("%s: a wrong answer", path)
}

func (f *faulty) signs(ctx context.Context) error {
	digest := sha256.Sum256([]byte("load"))
	signature, err := f.signer.SignContext(ctx, digest[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(f.signer.Public().(*ecdsa.PublicKey), digest[:], signature) {
		f.isWrong("sign")
	}
	return err
}

func (f *faulty) macs(ctx context.Context) error {
	sum, err := f.mac.Sum(ctx, []byte("load"))
	if err == nil && !bytes.Equal(sum, f.sum) {
		f.isWrong("mac")
	}
	return err
}

func (f *faulty) encrypts(ctx context.Context) error {
	buf := make([]byte, len(f.cipher))
	err := f.blocks.EncryptBlocks(ctx, buf, buf)
	if err == nil && !bytes.Equal(buf, f.cipher) {
		f.isWrong("blocks")
	}
	return err
}

// seals asks under the AEAD's own deadline, since Tink's interface carries no context. What the module says of a
// ciphertext that it cannot open is the caller's error, whatever the code.
func (f *faulty) seals(context.Context) error {
	sealed, err := f.aead.Encrypt([]byte("load"), []byte("a"))
	if err != nil {
		return err
	}
	opened, err := f.aead.Decrypt(sealed, []byte("a"))
	if err == nil && string(opened) != "load" {
		f.isWrong("envelope")
	}
	if errors.Is(err, hsm.ErrNotAuthentic) {
		return fmt.Errorf("%w: %w", hsm.ErrUnavailable, err)
	}
	return err
}

func (f *faulty) keeps(ctx context.Context) error {
	value := fmt.Sprintf("card %d", time.Now().UnixNano())
	id, err := f.objects.Create(ctx, []byte(value))
	if err != nil {
		return err
	}
	buf := make([]byte, 64)
	n, err := f.objects.Read(ctx, id, buf)
	if err == nil && string(buf[:n]) != value {
		f.isWrong("objects")
	}
	return errors.Join(err, f.objects.Destroy(ctx, id))
}

// hold puts objects into the device, to see later whether they have survived.
func (f *faulty) hold() {
	f.t.Helper()
	clear(f.held)
	for i := range 4 {
		value := fmt.Sprintf("held %d", i)
		id, err := f.objects.Create(f.t.Context(), []byte(value))
		if err != nil {
			f.t.Fatal(err)
		}
		f.held[id] = value
	}
}

// survivors returns how many held objects are still there; a wrong one is an error.
func (f *faulty) survivors() (n int) {
	f.t.Helper()
	buf := make([]byte, 64)
	for id, value := range f.held {
		size, err := f.objects.Read(f.t.Context(), id, buf)
		switch {
		case err == nil && string(buf[:size]) == value:
			n++
		case err == nil:
			f.isWrong("held object")
		case !errors.Is(err, hsm.ErrLost):
			f.t.Errorf("a held object: %v", err)
		}
		if err == nil {
			if err := f.objects.Destroy(f.t.Context(), id); err != nil {
				f.t.Error(err)
			}
		}
	}
	return n
}

// resumes waits until every path answers.
func (f *faulty) resumes() {
	f.t.Helper()
	begun, quiet := time.Now(), 0
	f.until("the engine has nothing to mend", func() bool { // for a while: a fault is treated after it was made
		if quiet++; !f.engine.Settled() {
			quiet = 0
		}
		return quiet == 20
	})
	for name, path := range f.paths() {
		f.until(name+" answers", func() bool { return f.once(path) == nil })
	}
	if took := time.Since(begun); took > resumeWithin {
		f.t.Errorf("service resumed after %v", took)
	}
}

// wasHit waits until the fault has been made times times, under load.
func (f *faulty) wasHit(times int) {
	f.t.Helper()
	f.until("the fault was made", func() bool { return f.device.Hits() >= times })
}

// answered waits for n more right answers under load.
func (f *faulty) answered(n int64) {
	f.t.Helper()
	from := f.answers.Load()
	f.until("enough answers", func() bool { return f.answers.Load() >= from+n })
}

// until waits for something that comes by itself, and is an error where it does not come in time.
func (f *faulty) until(what string, holds func() bool) {
	f.t.Helper()
	deadline, tick := time.After(2*resumeWithin), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("never: %s; %+v", what, f.engine.Health())
		}
	}
}

// codes of the fault table that are no end.
var codes = map[string]uint{
	"SESSION_HANDLE_INVALID":    pkcs11.CKR_SESSION_HANDLE_INVALID,
	"SESSION_CLOSED":            pkcs11.CKR_SESSION_CLOSED,
	"OPERATION_ACTIVE":          pkcs11.CKR_OPERATION_ACTIVE,
	"OPERATION_NOT_INITIALIZED": pkcs11.CKR_OPERATION_NOT_INITIALIZED,
	"USER_NOT_LOGGED_IN":        pkcs11.CKR_USER_NOT_LOGGED_IN,
	"OBJECT_HANDLE_INVALID":     pkcs11.CKR_OBJECT_HANDLE_INVALID,
	"KEY_HANDLE_INVALID":        pkcs11.CKR_KEY_HANDLE_INVALID,
	"DEVICE_ERROR":              pkcs11.CKR_DEVICE_ERROR,
	"DEVICE_REMOVED":            pkcs11.CKR_DEVICE_REMOVED,
	"TOKEN_NOT_PRESENT":         pkcs11.CKR_TOKEN_NOT_PRESENT,
	"CRYPTOKI_NOT_INITIALIZED":  pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
	"DEVICE_MEMORY":             pkcs11.CKR_DEVICE_MEMORY,
	"HOST_MEMORY":               pkcs11.CKR_HOST_MEMORY,
	"SESSION_COUNT":             pkcs11.CKR_SESSION_COUNT,
	"GENERAL_ERROR":             pkcs11.CKR_GENERAL_ERROR,
	"FUNCTION_FAILED":           pkcs11.CKR_FUNCTION_FAILED,
	"BUFFER_TOO_SMALL":          pkcs11.CKR_BUFFER_TOO_SMALL,
}

var busyFunctions = map[string]fault.Function{
	"C_EncryptUpdate": fault.EncryptUpdate, "C_SignInit": fault.SignInit, "C_Sign": fault.Sign,
	"C_EncryptInit": fault.EncryptInit, "C_Encrypt": fault.Encrypt, "C_DecryptInit": fault.DecryptInit, "C_Decrypt": fault.Decrypt,
	"C_CreateObject": fault.CreateObject, "C_GetAttributeValue": fault.GetAttributeValue, "C_DestroyObject": fault.DestroyObject,
}

// Each code of the table, from each function that is called in normal service, under load, once and three times.
func TestServiceGoesOnAfterEveryReturnCode(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	defer stop()
	for name, code := range codes {
		t.Run(name, func(t *testing.T) {
			for function, number := range busyFunctions {
				for _, times := range []int{1, 3} {
					f.t = t
					f.hold()
					restarts := f.engine.Health().Restarts
					f.device.Inject(number, 2, times, fault.Returns(code))
					f.wasHit(times)
					f.resumes()
					ofObjects := number >= fault.CreateObject && number <= fault.GetAttributeValue
					ended := ofObjects && (code == pkcs11.CKR_SESSION_HANDLE_INVALID || code == pkcs11.CKR_SESSION_CLOSED)
					restarted := f.engine.Health().Restarts != restarts
					if n := f.survivors(); n != 4 && !ended && !restarted {
						t.Errorf("%s, %d times: %d of 4 objects have survived", function, times, n)
					}
					if restarted && times == 1 {
						t.Errorf("%s: one error has cost everybody's session", function)
					}
				}
			}
		})
	}
	f.t = t
	if tries := f.engine.Health().Logins; tries > f.engine.Health().Restarts+100 {
		t.Errorf("%d logins", tries)
	}
}

// The functions by which the engine recovers go wrong as well, one after another.
func TestServiceGoesOnWhenTheRecoveryGoesWrongToo(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	defer stop()
	for name, function := range map[string]fault.Function{
		"C_Initialize": fault.Initialize, "C_GetTokenInfo": fault.GetTokenInfo, "C_OpenSession": fault.OpenSession, "C_Login": fault.Login,
		"C_FindObjectsInit": fault.FindObjectsInit, "C_FindObjects": fault.FindObjects, "C_EncryptInit": fault.EncryptInit, "C_Finalize": fault.Finalize,
	} {
		t.Run(name, func(t *testing.T) {
			for _, code := range codes {
				f.t = t
				f.device.Away(true)
				f.device.Inject(function, 1, 2, fault.Returns(code))
				f.until("callers notice", f.away)
				f.device.Away(false)
				f.resumes()
				f.device.Heal()
			}
		})
	}
	f.t = t
}

// away reports whether callers have noticed.
func (f *faulty) away() bool { return errors.Is(f.once(f.macs), hsm.ErrUnavailable) }

func TestServiceResumesAfterSessionsWereForgotten(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	defer stop()
	for name, what := range map[string]fault.Fault{"one": fault.Forgets(), "all": fault.ForgetsAll(), "the login": fault.LogsOut()} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			for _, function := range busyFunctions {
				f.hold()
				f.device.Inject(function, 2, 1, what)
				f.wasHit(1)
				f.resumes()
				n := f.survivors()
				if alive := name == "one" && (function == fault.EncryptUpdate || function == fault.Sign || function == fault.SignInit); alive && n != 4 {
					t.Errorf("%d of 4 objects have survived the end of another session", n)
				}
			}
		})
	}
	f.t = t
}

// A module that has forgotten a session gives its number to the next one. Blocks must not be encrypted under the key of
// whoever got it, and objects must not be taken for each other.
func TestANumberGivenAgainIsNotTakenForTheOldOne(t *testing.T) {
	f := newFaulty(t, func(cfg *hsm.Config) { cfg.BlockSessions = 1 })
	defer f.close()
	other := hsm.Key{Role: "tokenize", Version: 2}
	if _, err := f.engine.Generate(t.Context(), other, tokenize); err != nil {
		t.Fatal(err)
	}
	f.hold()
	number := f.blocks.Handle()
	f.device.ForgetSession(number)
	second := f.engine.BlockCipherOf(other)
	buf := make([]byte, 16)
	if err := second.EncryptBlocks(t.Context(), buf, buf); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(buf, f.cipher[:16]) {
		t.Fatal("two keys encrypt alike")
	}
	if second.Handle() != number {
		t.Fatalf("the test is worth nothing: the second cipher has session %d, not %d", second.Handle(), number)
	}
	for range 3 {
		if err := f.once(f.encrypts); err != nil {
			t.Error(err)
		}
		again := make([]byte, 16)
		if err := second.EncryptBlocks(t.Context(), again, again); err != nil || !bytes.Equal(again, buf) {
			t.Errorf("the second cipher: %x, %v, want %x", again, err, buf)
		}
	}
	if n := f.survivors(); n != 4 {
		t.Errorf("%d of 4 objects have survived", n)
	}

	first, err := f.objects.Create(t.Context(), []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	f.device.ForgetObject(f.objects.ObjectHandle(first))
	next, err := f.objects.Create(t.Context(), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	if f.objects.ObjectHandle(next) != f.objects.ObjectHandle(first) {
		t.Fatal("the test is worth nothing: the second object has another number")
	}
	dst := make([]byte, 64)
	if n, err := f.objects.Read(t.Context(), first, dst); !errors.Is(err, hsm.ErrLost) || bytes.Contains(dst, []byte("second")) {
		t.Errorf("another object was read: %q, %v", dst[:n], err)
	}
	if n, err := f.objects.Read(t.Context(), next, dst); err != nil || string(dst[:n]) != "second" {
		t.Errorf("%q, %v", dst[:n], err)
	}
}

func TestWrongLengthsAreNeverAnAnswer(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	defer stop()
	for name, function := range map[string]fault.Function{
		"C_EncryptUpdate": fault.EncryptUpdate, "C_Encrypt": fault.Encrypt, "C_Decrypt": fault.Decrypt, "C_Sign": fault.Sign, "C_GetAttributeValue": fault.GetAttributeValue,
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			for _, by := range []int{-16, -1, 1, 16, 1 << 20} {
				f.device.Inject(function, 2, 2, fault.Length(by))
				f.wasHit(2)
				f.resumes()
			}
		})
	}
	f.t = t
	if f.engine.Health().Faults["wrong length"] == 0 {
		t.Errorf("none was counted: %+v", f.engine.Health())
	}
}

func TestACallThatHangsIsLeftBehindAndTakenBack(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	for name, function := range map[string]fault.Function{
		"sign": fault.Sign, "blocks": fault.EncryptUpdate, "objects": fault.CreateObject,
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.hold()
			f.device.Inject(function, 1, 1, fault.Hangs())
			err := f.once(f.paths()[name])
			left, ok := errors.AsType[*hsm.AbandonedError](err)
			if !ok || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a hanging call: %v", err)
			}
			if h := f.engine.Health(); h.Abandoned != 1 || h.Busy != 1 || !h.Up {
				t.Errorf("while it hangs: %+v", h)
			}
			for path, once := range f.paths() {
				if path != name {
					if err := f.once(once); err != nil {
						t.Errorf("%s, while %s hangs: %v", path, name, err)
					}
				}
			}
			select {
			case <-left.Returned():
				t.Error("the buffers were given back while the module works on them")
			default:
			}
			f.device.Release()
			<-left.Returned()
			f.resumes()
			if h := f.engine.Health(); h.Abandoned != 0 || h.Restarts != 0 {
				t.Errorf("after it: %+v", h)
			}
			if n := f.survivors(); n != 4 {
				t.Errorf("%d of 4 objects have survived", n)
			}
		})
	}
	f.t = t
}

// Wherever a call hangs, callers leave, the engine fails, and closing it does not hang.
func TestACallThatNeverReturnsEndsTheEngine(t *testing.T) {
	for name, c := range map[string]struct {
		function fault.Function
		away     bool // the function is part of the recovery
	}{
		"C_Sign": {fault.Sign, false}, "C_EncryptUpdate": {fault.EncryptUpdate, false}, "C_GetAttributeValue": {fault.GetAttributeValue, false},
		"C_OpenSession": {fault.OpenSession, true}, "C_Login": {fault.Login, true}, "C_Initialize": {fault.Initialize, true},
		"C_Finalize": {fault.Finalize, true}, "C_GetTokenInfo": {fault.GetTokenInfo, true}, "C_FindObjects": {fault.FindObjects, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, func(cfg *hsm.Config) { cfg.CallLimit = time.Second })
			stop := f.load()
			defer stop()
			if c.away {
				f.device.Away(true)
				f.until("the module is started again", func() bool { return f.engine.Health().Restarts > 0 })
			}
			f.device.Inject(c.function, 1, 1, fault.Hangs())
			hangs := func() bool { return f.device.Held() == 1 }
			if c.function == fault.Finalize { // part of each try while the device is away
				f.until("a call hangs", hangs)
			}
			f.device.Away(false)
			f.until("a call hangs", hangs)
			select {
			case <-f.engine.Failed():
			case <-time.After(resumeWithin):
				t.Errorf("the engine goes on: %+v", f.engine.Health())
			}
			stop()
			if !errors.Is(f.engine.Err(), hsm.ErrStuck) || f.engine.Health().Up {
				t.Errorf("%v, %+v", f.engine.Err(), f.engine.Health())
			}
			for name, path := range f.paths() {
				if err := f.once(path); !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(err, hsm.ErrStuck) {
					t.Errorf("%s: %v", name, err)
				}
			}
			begun := time.Now()
			if err := f.engine.Close(); !errors.Is(err, hsm.ErrStuck) || time.Since(begun) > time.Second {
				t.Errorf("closing under a hanging call: %v, after %v", err, time.Since(begun))
			}
			f.device.Release()
			f.until("the call is over", func() bool { return f.device.Held() == 0 })
			goleak.VerifyNone(t, f.before)
			if err := pkcs11.New(f.cfg.Module).Finalize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
				t.Error(err)
			}
		})
	}
}

// A module that cannot take two calls at once gets one at a time, in faults and recoveries too.
func TestCallsTakeTurnsWhereTheProfileSaysSo(t *testing.T) {
	for name, one := range map[string]bool{"any number": false, "one": true} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, func(cfg *hsm.Config) { cfg.Profile.OneCall = one })
			f.device.Inject(fault.Every, 1, 1_000_000, fault.Delays(100*time.Microsecond)) // long enough to meet
			stop := f.load()
			f.answered(100)
			f.device.Away(true)
			f.until("the module is started again", func() bool { return f.engine.Health().Restarts > 0 })
			f.device.Away(false)
			f.answered(100)
			stop()
			f.device.Heal()
			if most := f.device.Most(); one != (most == 1) {
				t.Errorf("%d calls at once", most)
			}
			f.close()
		})
	}
}

// Who waits for a turn behind a call that hangs leaves in time, and is not counted as being in the module.
func TestCallersBehindAHangingTurnLeave(t *testing.T) {
	f := newFaulty(t, func(cfg *hsm.Config) { cfg.Profile.OneCall = true })
	f.device.Inject(fault.EncryptUpdate, 1, 1, fault.Hangs())
	hanging := make(chan error, 1)
	go func() { hanging <- f.once(f.encrypts) }()
	f.until("a call hangs", func() bool { return f.device.Held() == 1 })
	if err := f.once(f.macs); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the caller's deadline", err)
	}
	if err := <-hanging; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the hanging call: %v, want its caller's deadline", err)
	}
	if h := f.engine.Health(); h.Busy != 1 {
		t.Errorf("%d calls are in the module, want the one that hangs", h.Busy)
	}
	f.device.Release()
	f.until("the calls go on", func() bool { return f.once(f.macs) == nil && f.once(f.encrypts) == nil })
	f.close()
}

func TestARefusedPINIsNotTriedAgain(t *testing.T) {
	for name, code := range map[string]uint{"PIN_INCORRECT": pkcs11.CKR_PIN_INCORRECT, "PIN_LOCKED": pkcs11.CKR_PIN_LOCKED} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, nil)
			stop := f.load()
			tries := f.device.Calls(fault.Login)
			f.device.Inject(fault.Login, 1, 1000, fault.Returns(code))
			f.device.Away(true)
			f.until("the module is started again", func() bool { return f.engine.Health().Restarts > 0 })
			f.device.Away(false)
			select {
			case <-f.engine.Failed():
			case <-time.After(resumeWithin):
				t.Error("the engine goes on")
			}
			stop()
			if !errors.Is(f.engine.Err(), hsm.ErrPIN) || f.engine.Health().Up {
				t.Errorf("%v, %+v", f.engine.Err(), f.engine.Health())
			}
			if n := f.device.Calls(fault.Login) - tries; n != 1 {
				t.Errorf("the PIN was tried %d times", n)
			}
			f.close()
		})
	}
}

// One login serves everybody who has found that it was lost.
func TestALostLoginIsRenewedOnce(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	for range 10 {
		tries := f.device.Calls(fault.Login)
		f.device.Inject(fault.Sign, 1, 1, fault.LogsOut())
		f.wasHit(1)
		f.resumes()
		if n := f.device.Calls(fault.Login) - tries; n != 1 {
			t.Errorf("%d logins", n)
		}
	}
	stop()
	if h := f.engine.Health(); h.Restarts != 0 {
		t.Errorf("the module was started again for a login: %+v", h)
	}
}

func TestAWholeOutageUnderLoad(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	stop := f.load()
	defer stop()
	for range 3 {
		f.device.Away(true)
		f.until("callers notice", f.away)
		f.device.Away(false)
		f.resumes()
	}
}

// A canceled caller's buffer is still the module's; the object that came to be is nobody's, and is destroyed.
func TestAnObjectThatNobodyWaitedForIsDestroyed(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	f.device.Inject(fault.CreateObject, 1, 1, fault.Hangs())
	left := f.leaves(func(ctx context.Context) error { _, err := f.objects.Create(ctx, []byte("card")); return err })
	destroyed := f.device.Calls(fault.DestroyObject)
	f.device.Release()
	<-left.Returned()
	if n := f.device.Calls(fault.DestroyObject) - destroyed; n != 1 {
		t.Errorf("%d objects were destroyed", n)
	}
}

func TestAProviderThatRefusesOperationsInPartsIsServed(t *testing.T) {
	for name, refusal := range map[string]fault.Fault{
		"it has none": fault.Returns(pkcs11.CKR_FUNCTION_NOT_SUPPORTED), "it keeps blocks back": fault.Length(-16),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t, nil)
			defer f.close()
			f.device.Inject(fault.EncryptUpdate, 1, 1<<30, refusal)
			blocks, err := f.engine.BlockCipher(t.Context(), hsm.Key{Role: tokenize.Role, Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			if blocks.KeptOpen() || !f.blocks.KeptOpen() {
				t.Error("it was not found out")
			}
			buf := make([]byte, len(f.cipher))
			if err := blocks.EncryptBlocks(t.Context(), buf, buf); err != nil || !bytes.Equal(buf, f.cipher) {
				t.Errorf("other blocks than with an operation that stays open: %v", err)
			}
			if h := f.engine.Health(); h.Restarts != 0 {
				t.Errorf("%+v", h)
			}
		})
	}
}

func TestSeveralSessionsAreUsedWhereTheyGain(t *testing.T) {
	f := newFaulty(t, func(cfg *hsm.Config) { cfg.BlockSessions = 8 })
	defer f.close()
	f.device.Inject(fault.EncryptUpdate, 1, 1<<30, fault.Delays(time.Millisecond))
	blocks, err := f.engine.BlockCipher(t.Context(), hsm.Key{Role: tokenize.Role, Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := blocks.Sessions(); n < 2 {
		t.Errorf("%d session with an HSM a millisecond away", n)
	}
	var together sync.WaitGroup
	for range 2 * blocks.Sessions() {
		together.Go(func() {
			buf := make([]byte, len(f.cipher))
			if err := blocks.EncryptBlocks(t.Context(), buf, buf); err != nil || !bytes.Equal(buf, f.cipher) {
				t.Errorf("a wrong answer: %v", err)
			}
		})
	}
	together.Wait()
}

// An object that nobody waited for, and that could not be destroyed at once, is destroyed with the next call.
func TestAnOrphanIsDestroyedLater(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	f.device.Inject(fault.CreateObject, 1, 1, fault.Hangs())
	left := f.leaves(func(ctx context.Context) error { _, err := f.objects.Create(ctx, []byte("card")); return err })
	f.device.Inject(fault.DestroyObject, 1, 1, fault.Returns(pkcs11.CKR_FUNCTION_FAILED))
	f.device.Unblock()
	<-left.Returned()
	if f.device.Hits() != 1 || f.objects.Orphans() != 1 {
		t.Fatalf("%d destructions failed, %d orphans", f.device.Hits(), f.objects.Orphans())
	}
	if err := f.once(f.keeps); err != nil {
		t.Error(err)
	}
	if n := f.objects.Orphans(); n != 0 {
		t.Errorf("%d orphans are left", n)
	}
}
