// Package failpoint marks the places at which a test may kill the process, to see what the next one makes of it.
//
// In an ordinary build [Here] does nothing. With the build tag failpoints, the process kills itself with SIGKILL at the
// place that the variable FINPAY_FAILPOINT names, the first time that it is there or, with "#N" behind the name, the N-th: as a
// power cut would, nothing is flushed and no defer runs. FINPAY_AHEAD, a duration, makes keys look older than they are, and webhooks due that much
// earlier.
package failpoint
