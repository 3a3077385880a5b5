package config

import (
	"fmt"
	"net"
	"strings"
)

// OnFreePorts returns the documented configuration with free loopback ports in place of its own, so that several
// trials run beside each other.
func OnFreePorts(documented []byte) ([]byte, error) {
	var pairs []string
	for _, port := range []string{":8443", ":8444", ":8480", ":8543", ":8583"} {
		socket, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = socket.Close() }() // all are held until all are chosen
		pairs = append(pairs, port, fmt.Sprintf(":%d", socket.Addr().(*net.TCPAddr).Port))
	}
	return []byte(strings.NewReplacer(pairs...).Replace(string(documented))), nil
}
