package fakestripe

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// StartMock starts the stripe-mock that the environment's STRIPE_MOCK names, and returns its URL. It ends with the test.
func StartMock(t testing.TB) string {
	t.Helper()
	program := os.Getenv("STRIPE_MOCK")
	if program == "" {
		t.Fatal("STRIPE_MOCK names no stripe-mock: make peers")
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	_ = socket.Close()
	command := exec.Command(program, "-http-addr", address)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "http://" + address
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("stripe-mock did not start")
		}
	}
}

// Proxy lets a stripe-mock answer instead of this server, which is its TLS from then on.
func (s *Server) Proxy(mock string) {
	target, err := url.Parse(mock)
	if err != nil {
		panic(err) // it comes from StartMock
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer sk_test_123") // it takes no live key
		proxy.ServeHTTP(w, r)
	})
}
