package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/finterra/finpay/api"
)

// newPayment makes the payment whose page is looked at, and returns the page's address. Nobody pays it: it expires.
func (c cli) newPayment(ctx context.Context) (string, error) {
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return "", fmt.Errorf("the API key cannot be read: %w", err)
	}
	body, err := json.Marshal(api.CreatePayment{Amount: 100, Currency: "EUR", Reference: "page-probe", ReturnURL: c.Return})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.API+"/v1/payments", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(key)))
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: c.Insecure}}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var made api.Payment
	if err := json.NewDecoder(http.MaxBytesReader(nil, response.Body, 1<<20)).Decode(&made); err != nil || made.CheckoutURL == "" {
		return "", fmt.Errorf("the appliance made no payment: HTTP %d", response.StatusCode)
	}
	return made.CheckoutURL, nil
}
