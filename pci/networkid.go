package pci

// MaxNetworkID is the longest identifier of a transaction that is kept, in characters.
const MaxNetworkID = 36

// IsNetworkID accepts what may be a scheme's identifier of a transaction: 1 to 36 letters and digits that are no card number. Hosts
// may echo what they were sent where it is looked for.
func IsNetworkID(id string) bool {
	if len(id) > MaxNetworkID {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return id != "" && !LooksLikePAN(id)
}
