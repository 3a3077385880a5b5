package webhook

import (
	"errors"
	"net/netip"
	"syscall"
)

// ErrPrivate means that an endpoint resolves to an address that no merchant on the Internet has.
var ErrPrivate = errors.New("webhook: the endpoint's address is private")

// refusePrivate looks at the address that is really connected to, after name resolution: a name that resolves to
// another address the second time gains nothing.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !isPublic(ap.Addr()) {
		return ErrPrivate
	}
	return nil
}

// isPublic reports whether somebody on the Internet may have an address. An IPv4 address is judged as such in IPv6 clothes too.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, reserved := range notPublic {
		if reserved.Contains(ip) {
			return false
		}
	}
	return true
}

// notPublic are the ranges beside private, loopback, link-local and multicast ones that lead to nobody on the Internet, or
// through a translator to any IPv4 address (IANA special-purpose address registries, RFC 6890). The addresses at which clouds
// tell a machine its secrets are link-local (169.254.169.254), unique local (fd00:ec2::254), or here (100.100.100.200).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // shared with a carrier's NAT, RFC 6598
	netip.MustParsePrefix("192.0.0.0/24"),    // IETF protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // relays of 6to4, deprecated
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarking
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved
	netip.MustParsePrefix("::/96"),           // IPv4-compatible, deprecated
	netip.MustParsePrefix("64:ff9b::/96"),    // NAT64, RFC 6052
	netip.MustParsePrefix("64:ff9b:1::/48"),  // NAT64, RFC 8215
	netip.MustParsePrefix("100::/64"),        // discard-only, RFC 6666
	netip.MustParsePrefix("2001::/23"),       // IETF protocol assignments, Teredo among them
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("2002::/16"),       // 6to4
	netip.MustParsePrefix("3fff::/20"),       // documentation, RFC 9637
	netip.MustParsePrefix("5f00::/16"),       // segment routing, RFC 9602
	netip.MustParsePrefix("fec0::/10"),       // site-local, deprecated
}
