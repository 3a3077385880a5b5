package softhsmtest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/softhsm-test/fault"
)

func TestAPaymentInFlightIsFinishedBeforeTheEnd(t *testing.T) {
	s := newSystem(t)
	id, link := s.buy()
	paid := make(chan error, 1)
	go func() {
		_, err := s.shop.Enter(t.Context(), link, typed("4539686868686864")) // the acquirer is silent for a second
		paid <- err
	}()
	s.until("the sale has left", func() bool { return s.payment(id).Status == api.StatusAuthorizing })
	if err := s.serve.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The form has its answer, a redirect; the page it leads to is served by the next process.
	if err := <-paid; err != nil && !strings.HasPrefix(err.Error(), "GET ") {
		t.Errorf("the shopper was left without an answer: %v", err)
	}
	<-s.serve.done
	if code := s.serve.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.verifyLog()
	s.client.CloseIdleConnections()
	s.serve = s.start("serve")
	s.awaitReady()
	if got := s.settled(id); got.Status != api.StatusFailed {
		t.Errorf("after the restart the payment is %s", got.Status)
	}
	s.agree()
}

func TestAnOpenChallengeDoesNotHoldUpTheEnd(t *testing.T) {
	s := newSystem(t)
	id, link := s.buy()
	if _, err := s.shop.Enter(t.Context(), link, typed("4539123456789017")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	s.serve.stop()
	if took := time.Since(begun); took > 8*time.Second { // a fresh connection without a request counts for five
		t.Errorf("the end took %v", took)
	}
	s.client.CloseIdleConnections()
	s.serve = s.start("serve")
	s.awaitReady()
	if got := s.payment(id); got.Status != api.StatusCreated || got.Result == nil || got.Result.Reason != api.ReasonTryAgain {
		t.Errorf("%s, %+v", got.Status, got.Result)
	}
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Error(err)
	}
}

func TestASecondServerIsRefused(t *testing.T) {
	s := newSystem(t)
	second := s.start("serve")
	<-second.done
	log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
	if err != nil {
		t.Fatal(err)
	}
	if second.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(log), "another process is using this state directory") {
		t.Errorf("exit code %d", second.cmd.ProcessState.ExitCode())
	}
	s.awaitReady() // the first one goes on
}

// A call into the vendor's library that never returns cannot be ended, only the process can: its supervisor starts the
// next one.
func TestACallIntoTheHSMThatNeverReturnsEndsTheProcess(t *testing.T) {
	module, device := faultModule(t)
	s := newSystem(t, module, setting{"call_limit: 30s", "call_limit: 1s"})
	id, link := s.buy()
	device.Inject(fault.EncryptUpdate, 1, 1, fault.Hangs())
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		_, _ = s.shop.Enter(t.Context(), link, typed("4111111111111111")) // it is told to try again, or hung up on
	}()
	ready := func() int {
		response, err := http.Get("http://" + s.cfg.Monitor + "/readyz")
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	s.until("a call hangs", func() bool { return device.Held() == 1 })
	s.until("not ready", func() bool { return ready() != http.StatusOK })
	select {
	case <-s.serve.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the process goes on")
	}
	if code := s.serve.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	<-entered
	device.Release()
	s.client.CloseIdleConnections()
	s.serve = s.start("serve")
	s.awaitReady()
	if got := s.payment(id); got.Status != api.StatusCreated {
		t.Errorf("the payment is %s", got.Status)
	}
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Error(err)
	}
	s.agree()
}
