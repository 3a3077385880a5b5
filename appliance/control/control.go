// Package control is how an operator's commands reach a running appliance: a socket in its state directory, HTTP with JSON
// inside.
//
// # What is promised
//
// Only the appliance's own user and root get an answer: the socket has the mode 0600, and the kernel is asked who is
// at the other end. Whoever may open it could as well stop the appliance and run the same command on its files.
//
// # What is not
//
// It is no API for merchants, and no way in from another machine.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FileName is the socket's name in the state directory.
const FileName = "control.sock"

// ErrNotRunning means that no appliance serves from the state directory.
var ErrNotRunning = errors.New("control: no appliance is serving from this state directory")

// Operation does what a request asks for and returns what to answer. by is who asks, as entries name an origin.
type Operation func(ctx context.Context, by string, request []byte) (answer any, err error)

// Bounds of an exchange.
const (
	maxRequest        = 1 << 20
	maxAnswer         = 16 << 20
	readHeaderTimeout = 10 * time.Second
	stopTimeout       = 10 * time.Second // for operations under way
)

// Server answers commands.
type Server struct {
	operations map[string]Operation
	socket     *net.UnixListener
	path       string
	http       *http.Server
}

// Listen opens the socket of a state directory that this process has locked: what is there is left over from a process that
// has ended. The caller ends the server by [Server.Serve]'s context.
func Listen(dir string, operations map[string]Operation) (*Server, error) {
	path := filepath.Join(dir, FileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s := &Server{operations: operations, path: path}
	err := within(dir, func(short string) (err error) {
		s.socket, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	s.socket.SetUnlinkOnClose(false) // it would unlink the short name
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, s.socket.Close())
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: readHeaderTimeout, ConnContext: withPeer}
	return s, nil
}

// Serve answers until ctx ends, then waits for operations under way.
func (s *Server) Serve(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		ended <- s.http.Shutdown(last)
	}()
	if err := s.http.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return errors.Join(<-ended, os.Remove(s.path))
}

// within calls f with a short name of the socket: the kernel takes no more than 107 bytes, and state directories may be
// longer.
func within(dir string, f func(short string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), FileName))
}

type peerKey struct{}

// withPeer notes who is at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer.Uid)
}

// Origin is how entries name a user of this machine.
func Origin(uid int) string { return fmt.Sprintf("uid:%d", uid) }

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	if !ok || (uid != 0 && int(uid) != os.Geteuid()) {
		refuse(w, http.StatusForbidden, errors.New("only the appliance's own user and root may"))
		return
	}
	operation, ok := s.operations[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok || r.Method != http.MethodPost {
		refuse(w, http.StatusNotFound, errors.New("the running appliance does not know this command: is it of another version?"))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	answer, err := operation(r.Context(), Origin(int(uid)), body)
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// refusal is the body of an answer that is an error.
type refusal struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{err.Error()})
}

// Serves reports whether an appliance serves from a state directory.
func Serves(ctx context.Context, dir string) bool {
	var d net.Dialer
	return within(dir, func(short string) error {
		conn, err := d.DialContext(ctx, "unix", short)
		if err == nil {
			err = conn.Close()
		}
		return err
	}) == nil
}

// Call has the appliance that serves from a state directory do an operation, and decodes its answer. Without one it is
// [ErrNotRunning].
func Call(ctx context.Context, dir, operation string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = within(dir, func(short string) (err error) {
			var d net.Dialer
			conn, err = d.DialContext(ctx, "unix", short)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	target := url.URL{Scheme: "http", Host: "appliance", Path: "/" + operation}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w (%s)", ErrNotRunning, dir)
	}
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode == http.StatusOK {
		return decoder.Decode(answer)
	}
	var refused refusal
	if err := decoder.Decode(&refused); err != nil {
		return fmt.Errorf("control: HTTP %d", response.StatusCode)
	}
	return errors.New(refused.Error)
}
