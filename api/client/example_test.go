package client_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/finterra/finpay/api/client"
)

// standIn answers as an appliance does to the two cards of the example, so that it runs anywhere. With `make run` in
// another terminal, URL is https://localhost:8443, Roots has var/tls/server.pem, and Open can be left out.
func standIn() (server *httptest.Server, roots *x509.CertPool) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tokens/batch", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"line":1,"token":"9688077933731111","issued":true,"card":{"brand":"visa","truncated":"411111******1111","expiry":"2031-12"}}
{"line":2,"error":{"code":"invalid_card","detail":"number: wrong_checksum.","pointer":"/number"}}
`)
	})
	server = httptest.NewTLSServer(mux)
	roots = x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server, roots
}

// A batch sends in one goroutine and receives in another.
func Example() {
	server, roots := standIn()
	defer server.Close()
	c, err := client.New(client.Config{URL: server.URL, Key: "fp_test_0123456789abcdef_secret", Roots: roots, Open: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	batch, err := c.Batch(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		defer batch.CloseSend()
		for _, number := range []string{"4111111111111111", "4111111111111112"} {
			if err := batch.Send(client.Card{Number: number, Expiry: "2031-12"}); err != nil {
				return // Receive says why
			}
		}
	}()
	for {
		result, err := batch.Receive()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			fmt.Println("the rest can be sent again:", err)
			return
		}
		if problem, ok := errors.AsType[*client.Error](result.Err); ok {
			fmt.Println(result.Line, "refused:", problem.Code, problem.Detail)
			continue
		}
		fmt.Println(result.Line, result.Truncated, "is", result.Token)
	}
	// Output:
	// 1 411111******1111 is 9688077933731111
	// 2 refused: invalid_card number: wrong_checksum.
}
