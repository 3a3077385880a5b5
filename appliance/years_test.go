package main

import "testing"

func TestALogIsFollowedByThatOfTheNextYear(t *testing.T) {
	for origin, want := range map[string]string{
		"finpay.example/finpay-1/2026":                    "finpay.example/finpay-1/2027",
		"finpay.example/finpay-1/2024":                    "finpay.example/finpay-1/2027",
		"finpay.example/finpay-1/2026/r20270105-0a1b2c3d": "finpay.example/finpay-1/2027/r20270105-0a1b2c3d",
		"finpay.example/2026/node":                        "",
		"finpay.example/finpay-1/2027":                    "",
		"finpay.example/finpay-1/2027/r20270105-0a1b2c3d": "",
		"finpay.example/finpay-1/2028":                    "",
		"finpay.example/finpay-2026":                      "",
		"2026":                                            "",
		"finpay.example/20261/node":                       "",
	} {
		if got := logOfYear(origin, 2027); got != want {
			t.Errorf("%s is followed by %q, want %q", origin, got, want)
		}
	}
}
