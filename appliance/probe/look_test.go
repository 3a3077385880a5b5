package main

import (
	"testing"

	"github.com/chromedp/cdproto/network"
)

// The browser's events and answers come over one connection, in order: an answer cannot come while an event waits for the probe.
func TestAnEventThatComesBeforeAnAnswerDoesNotHoldItUp(t *testing.T) {
	response := func(path string) *network.EventResponseReceived {
		return &network.EventResponseReceived{Type: network.ResourceTypeScript, RequestID: network.RequestID(path),
			Response: &network.Response{URL: "https://pay.example" + path, Status: 200}}
	}
	r := &receiver{}
	r.take(response("/assets/checkout.js"))
	got := r.loaded(func(network.RequestID) ([]byte, error) {
		r.take(response("/assets/late.js"))
		return []byte("script"), nil
	})
	if len(got) != 1 || got[0].Path != "/assets/checkout.js" || got[0].Integrity == "" {
		t.Errorf("%+v", got)
	}
}
