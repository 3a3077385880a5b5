//go:build peers

package conformance

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// p11kit is SoftHSM2 behind a p11-kit socket, which stands for an HSM on the network.
type p11kit struct {
	t       *testing.T
	token   hsm.Config
	socket  string
	address string
	cmd     *exec.Cmd
}

func newP11kit(t *testing.T) *p11kit {
	t.Helper()
	p := &p11kit{t: t, token: softhsmtest.Token(t), socket: filepath.Join(t.TempDir(), "p11-kit")}
	p.start()
	t.Cleanup(p.kill)
	return p
}

// start returns when the server listens. SoftHSM2 runs in the server, which alone reads its configuration.
func (p *p11kit) start() {
	p.t.Helper()
	if err := os.Remove(p.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command("p11-kit", "server", "--foreground", "--name", p.socket, "--provider", p.token.Module, "pkcs11:token="+p.token.Label)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+p.token.Environment["SOFTHSM2_CONF"])
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(address)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "P11_KIT_SERVER_ADDRESS="); ok {
				address <- strings.TrimSuffix(value, "; export P11_KIT_SERVER_ADDRESS;")
			}
		}
	}()
	select {
	case at, ok := <-address:
		if !ok {
			p.t.Fatal("p11-kit server ended without saying where it listens")
		}
		p.address = at
	case <-time.After(10 * time.Second):
		p.t.Fatal("p11-kit server does not say where it listens")
	}
}

// kill ends the server and the processes that serve its connections.
func (p *p11kit) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait()
}

// config is what the appliance would use.
func (p *p11kit) config() hsm.Config {
	cfg := p.token
	profile, _, err := config.Provider("p11-kit", p.t.TempDir())
	if err != nil {
		p.t.Fatal(err)
	}
	cfg.Profile = profile
	cfg.Module = softhsmtest.Installed(p.t, "p11-kit", "p11-kit-modules")
	cfg.Environment = map[string]string{"P11_KIT_SERVER_ADDRESS": p.address}
	return cfg
}

func TestP11Kit(t *testing.T) {
	server := newP11kit(t)
	cfg := server.config()
	testProvider(t, provider{
		profile: "p11-kit", module: cfg.Module, label: cfg.Label, pin: cfg.PIN, wrongPIN: "000000",
		env: cfg.Environment, lacks: []hsm.Role{"ledger-ed25519", "intake"},
	})
}

// The server of an HSM dies in the middle of calls and comes back.
func TestP11KitServerIsKilledUnderLoad(t *testing.T) {
	server := newP11kit(t)
	engine, err := hsm.Open(server.config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	mac := engine.MAC(softhsmtest.Key(t, engine, hsm.Spec{Role: "apikey", Kind: hsm.HMAC, Class: hsm.Bound}))
	want, err := mac.Sum(t.Context(), []byte("load"))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := engine.BlockCipher(t.Context(), softhsmtest.Key(t, engine, hsm.Spec{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable}))
	if err != nil {
		t.Fatal(err)
	}
	cipher := make([]byte, 64*16)
	if err := blocks.EncryptBlocks(t.Context(), cipher, cipher); err != nil {
		t.Fatal(err)
	}
	t.Logf("sessions of the block path: %d, kept open: %v", blocks.Sessions(), blocks.KeptOpen())
	answers := func(ctx context.Context) error {
		sum, err := mac.Sum(ctx, []byte("load"))
		if err == nil && string(sum) != string(want) {
			t.Error("a wrong MAC")
		}
		buf := make([]byte, 64*16)
		blockErr := blocks.EncryptBlocks(ctx, buf, buf)
		if blockErr == nil && string(buf) != string(cipher) {
			t.Error("wrong blocks")
		}
		return errors.Join(err, blockErr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				call, end := context.WithTimeout(ctx, 2*time.Second)
				begun := time.Now()
				err := answers(call)
				end()
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("a caller was kept for %v", took)
				}
				if err != nil && !errors.Is(err, hsm.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		server.kill()
		away, tick := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
		for noticed := false; !noticed; {
			select {
			case <-tick.C:
				noticed = errors.Is(answers(ctx), hsm.ErrUnavailable)
			case <-away:
				t.Fatal("nobody has noticed that the server is away")
			}
		}
		server.start()
		back := time.Now()
		for answers(ctx) != nil && time.Since(back) < 20*time.Second {
			<-tick.C
		}
		tick.Stop()
		if took := time.Since(back); took > 5*time.Second {
			t.Errorf("service resumed after %v", took)
		}
	}
	cancel()
	load.Wait()
	t.Logf("%+v", engine.Health())
}
