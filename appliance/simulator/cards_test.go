package simulator

import "testing"

func TestTestCardsAreValidNumbers(t *testing.T) {
	seen := map[string]bool{}
	for _, card := range Cards {
		sum := 0
		for i := range card.Number {
			d := int(card.Number[len(card.Number)-1-i] - '0')
			if i%2 == 1 {
				if d *= 2; d > 9 {
					d -= 9
				}
			}
			sum += d
		}
		if sum%10 != 0 {
			t.Errorf("%s fails Luhn", card.Number)
		}
		if seen[card.Number] {
			t.Errorf("%s stands twice", card.Number)
		}
		seen[card.Number] = true
	}
}
