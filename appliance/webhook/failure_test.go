package webhook

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// An endpoint's words end up in the database and in the log: whatever it answers, none of them may.
func TestWhatAnEndpointAnswersIsNotKept(t *testing.T) {
	const pan = "4111111111111111"
	for name, answer := range map[string]string{
		"no HTTP":      pan + " is not HTTP\r\n\r\n",
		"a status":     "HTTP/1.1 " + pan + " no\r\n\r\n",
		"a reason":     "HTTP/1.1 500 " + pan + "\r\nContent-Length: 0\r\n\r\n",
		"a header":     "HTTP/1.1 200 OK\r\n" + pan + "\r\n\r\n",
		"a redirect":   "HTTP/1.1 302 Found\r\nLocation: http://[" + pan + "\r\nContent-Length: 0\r\n\r\n",
		"an encoding":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + pan + "\r\n\r\n",
		"a length":     "HTTP/1.1 200 OK\r\nContent-Length: -" + pan + "\r\n\r\n",
		"body and 500": "HTTP/1.1 500 No\r\nContent-Length: 16\r\n\r\n" + pan,
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = listener.Close() }()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = http.ReadRequest(bufio.NewReader(conn))
					_, _ = conn.Write([]byte(answer))
					_ = conn.Close()
				}
			}()
			problem := tryEndpoint(t, "http://"+listener.Addr().String(), patience)
			if problem == nil {
				t.Fatal("taken for a delivery")
			}
			if text := problem.Error(); strings.Contains(text, pan[:8]) || strings.Contains(text, "not HTTP\r") {
				t.Errorf("kept: %s", text)
			}
		})
	}
}

func TestAFailureSaysWhatToLookAt(t *testing.T) {
	strange := httptest.NewTLSServer(http.NotFoundHandler())
	defer strange.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	_ = listener.Close()
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	for _, test := range []struct {
		address, want string
		timeout       time.Duration
	}{
		{strange.URL, "certificate", patience},
		{"http://" + closed, "connection refused", patience},
		{slow.URL, "in time", 50 * time.Millisecond},
		{strings.Replace(slow.URL, "http:", "https:", 1), "TLS", patience},
	} {
		address, want := test.address, test.want
		if problem := tryEndpoint(t, address, test.timeout); problem == nil || !strings.Contains(problem.Error(), want) {
			t.Errorf("%s: %v, want something about %q", address, problem, want)
		}
	}
}

func tryEndpoint(t *testing.T, address string, timeout time.Duration) error {
	t.Helper()
	s := New(Config{AllowPrivate: true, Timeout: timeout})
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, address, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.send(request)
	return err
}
