//go:build peers

package witness

import (
	"bufio"
	"database/sql"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/store"
)

// litewitness starts filippo.io/torchwood's witness, which LITEWITNESS names, for a log. Its key is in an ssh-agent.
func litewitness(t *testing.T, vkey string) *stranger {
	t.Helper()
	program := os.Getenv("LITEWITNESS")
	if program == "" {
		t.Fatal("LITEWITNESS names no program: run make peers")
	}
	dir, err := os.MkdirTemp("", "witness-") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, key := filepath.Join(dir, "agent"), filepath.Join(dir, "key")
	background(t, exec.Command("ssh-agent", "-D", "-a", socket))
	await(t, "ssh-agent", func() bool { _, err := os.Stat(socket); return err == nil })
	command(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	command(t, []string{"SSH_AUTH_SOCK=" + socket}, "ssh-add", "-q", key)
	fingerprint := strings.Fields(command(t, nil, "ssh-keygen", "-lf", key+".pub"))[1]

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	db := filepath.Join(dir, "witness.db")
	cmd := exec.Command(program, "-name", "litewitness.example", "-db", db, "-ssh-agent", socket, "-key", fingerprint, "-listen", address)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	background(t, cmd)
	s := &stranger{vkey: saidKey(t, bufio.NewScanner(said))}
	register(t, db, vkey)
	await(t, "litewitness", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	s.url = "http://" + address
	return s
}

// saidKey waits for the line in which it says its key.
func saidKey(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	for lines.Scan() {
		if _, vkey, ok := strings.Cut(lines.Text(), "vkey="); ok {
			go func() {
				for lines.Scan() { // so that it can go on
				}
			}()
			return strings.Trim(strings.Fields(vkey)[0], `"`)
		}
	}
	t.Fatal("litewitness ended without saying its key")
	return ""
}

// register tells the witness of the log, as its operator would with witnessctl.
func register(t *testing.T, path, vkey string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range [][]any{
		{"INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", origin, base64.StdEncoding.EncodeToString(empty[:])},
		{"INSERT INTO key (origin, key) VALUES (?, ?)", origin, vkey},
	} {
		if _, err := db.ExecContext(t.Context(), row[0].(string), row[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not answer", what)
		}
	}
}

func TestLitewitnessCosignsAConsistentLogAndNoFork(t *testing.T) {
	w := newWorld(t)
	one := litewitness(t, w.ledger.WitnessKey())
	policy := fmt.Sprintf("witness w %s %s\nquorum w\n", one.vkey, one.url)
	p := w.publisher(t, policy)
	for _, entries := range []int{1, 300, 7} {
		w.write(t, entries)
		w.publish(t, p)
	}
	read := w.store.Read(t.Context())
	if found, err := read.CosignedCheckpoint(); err != nil || found.Size != 308 || !p.cfg.Policy.group.Satisfied(found.Note) {
		t.Fatalf("%+v, %v", found, err)
	}
	w.write(t, 4)
	w.publish(t, w.publisher(t, policy)) // one that has to ask what the witness knows
	w.close()
	s, err := store.OpenReadOnly(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	verdict, err := audit.Verify(t.Context(), audit.Database{Store: s}, audit.Terms{Key: w.ledger.VerifierKey(), Witnesses: []string{one.vkey}})
	if err != nil || !verdict.OK || !verdict.Witnessed || verdict.Cosigned != 312 {
		t.Errorf("%+v, %v", verdict, err)
	}

	fork := &world{dir: t.TempDir(), ecdsa: w.ecdsa, ed25519: w.ed25519, now: w.now}
	fork.open(t)
	fork.write(t, 320)
	q := fork.publisher(t, policy)
	fork.publish(t, q)
	fork.now = fork.now.Add(time.Hour)
	fork.publish(t, q)
	if found, err := fork.store.Read(t.Context()).CosignedCheckpoint(); err == nil || !q.Gap() {
		t.Errorf("a fork was cosigned: %s, gap %v", found.Note, q.Gap())
	}
}
