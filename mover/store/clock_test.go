package store_test

import "k8s.io/utils/clock"

func realClock() clock.Clock { return clock.RealClock{} }
