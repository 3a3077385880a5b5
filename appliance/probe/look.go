package main

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// look opens a page in a fresh browser and returns what that received. The page's form is left alone.
func (c cli) look(ctx context.Context, address string) (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(c.Browser), chromedp.Flag("headless", true), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true)}
	if c.Insecure {
		options = append(options, chromedp.Flag("ignore-certificate-errors", true))
	}
	if c.Root {
		options = append(options, chromedp.Flag("no-sandbox", true))
	}
	allocator, end := chromedp.NewExecAllocator(ctx, options...)
	defer end()
	tab, leave := chromedp.NewContext(allocator)
	defer leave()
	received := &receiver{}
	if err := chromedp.Listen(tab, received.take); err != nil {
		return seen{}, err
	}
	if _, err := chromedp.Call(tab, network.Enable, network.EnableParams{}); err != nil {
		return seen{}, err
	}
	document, err := chromedp.RunResponse(tab, chromedp.Navigate(address))
	if err != nil {
		return seen{}, err
	}
	s := seen{Headers: make(map[string]string)}
	for name, value := range document.Headers {
		if text, ok := value.(string); ok {
			s.Headers[http.CanonicalHeaderKey(name)] = text
		}
	}
	if s.Kind, err = chromedp.Run(tab, chromedp.Evaluate[string]("document.body.className")); err != nil {
		return seen{}, err
	}
	if s.Inline, err = chromedp.Run(tab, chromedp.Evaluate[int](countInline)); err != nil {
		return seen{}, err
	}
	s.Loaded = received.loaded(func(id network.RequestID) ([]byte, error) {
		body, err := chromedp.Call(tab, network.GetResponseBody, network.GetResponseBodyParams{RequestID: id})
		return body.Body, err
	})
	return s, tab.Err() // a page that is known in part has not changed for that
}

// countInline counts what runs or styles without being loaded.
const countInline = `document.querySelectorAll("script:not([src]), style, [style]").length +
	[...document.querySelectorAll("*")].reduce((n, e) => n + [...e.attributes].filter(a => a.name.startsWith("on")).length, 0)`

// receiver keeps what a page fetched.
type receiver struct {
	mu        sync.Mutex
	responses []*network.EventResponseReceived
	documents int
}

func (r *receiver) take(event any) {
	received, ok := event.(*network.EventResponseReceived)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if received.Type == network.ResourceTypeDocument {
		if r.documents++; r.documents == 1 {
			return // the page itself
		}
	}
	r.responses = append(r.responses, received)
}

// loaded hashes the bytes that were received. What arrives meanwhile is not among them.
func (r *receiver) loaded(body func(network.RequestID) ([]byte, error)) []loaded {
	// The lock is not held while the browser is asked: its answer comes over the same connection as the events, after those
	// that wait for the lock.
	r.mu.Lock()
	responses := slices.Clone(r.responses)
	r.mu.Unlock()
	var all []loaded
	for _, response := range responses {
		u, err := url.Parse(response.Response.URL)
		if err != nil || u.Path == "/favicon.ico" { // which browsers ask for by themselves, and never run
			continue
		}
		l := loaded{Type: string(response.Type), Path: u.Path, Status: response.Response.Status}
		if text, err := body(response.RequestID); err == nil {
			sum := sha512.Sum384(text)
			l.Integrity = "sha384-" + base64.StdEncoding.EncodeToString(sum[:])
		}
		all = append(all, l)
	}
	return all
}
