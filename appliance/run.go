package main

import (
	"context"
	"fmt"
	"os"

	"github.com/finterra/finpay/appliance/simulator"
)

type runCommand struct{}

// Run serves a trial until a signal comes.
func (runCommand) Run(ctx context.Context, g globals) (err error) {
	t, report, err := startTrial(ctx, g)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("\nStopping: what is in flight is finished.")
		if stopErr := t.stop(); err == nil {
			err = stopErr
		}
	}()
	report.print(os.Stdout)
	client, err := t.client()
	if err != nil {
		return err
	}
	s := &simulator.Shopper{Client: client}
	link, err := s.Buy(ctx, t.shopURL())
	if err != nil {
		return err
	}
	fmt.Printf(`
FINPay is running.

  Pay here       %s
  Shop           %s
  API            %s   (certificate: %s)
  Health         http://%s/readyz, metrics at /metrics
  Logs           %s, %s

Both sites have certificates of their own making, so the browser warns once for each.
Test cards, with any expiry in the future and any security code:

`, link, t.shopURL(), t.cfg.PublicURL, t.cfg.TLS.Certificate, t.cfg.Monitor, t.logFile("serve"), t.logFile("simulator"))
	printCards(os.Stdout)
	fmt.Println("\nCtrl-C stops it.")
	select {
	case <-ctx.Done():
		return nil
	case name := <-t.ended():
		return fmt.Errorf("%s ended by itself; see %s", name, t.logFile(name))
	}
}
