/* Why a cursor names an event and not a place in a log, for spin (https://spinroot.com).
 *
 * A log keeps its newest events, loses some that it had acknowledged, and gives their numbers to others: a failover to a
 * replica that lagged behind. Readers show what they are given; they lose their connection at any time and come back with
 * what they had last. Whenever a reader takes itself to be at the head, it has to show what a fresh load shows.
 *
 *     spin -a -DRULE=2 docs/resume.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan
 *
 * RULE 0  a reader goes on after the number that it had last, and takes what is delivered
 * RULE 1  a reader goes on where that number is in the log, else is given everything anew; and what it is delivered, and
 *         the head that it hears of, have to fit the event that it had last
 * RULE 2  the same, but the number has to be that very event, or the log's first event names that one as the one before
 *         it. This is what pushserver does.
 */
#ifndef RULE
#define RULE 2
#endif
#ifndef READERS
#define READERS 2
#endif
#ifndef EVENTS
#define EVENTS 5 /* published; 8 at most */
#endif
#define KEPT   3 /* in the log */
#define LOSSES 2 /* events that the log loses */

/* An event is a bit. A number may come to mean another event, a bit never does. */
byte event[EVENTS + 1];  /* by number */
byte before[EVENTS + 1]; /* by number: the event that came before it */
byte first = 1, last = 0; /* numbers in the log */
byte published = 0, losses = 0;
byte stored = 0; /* what a fresh load shows; what was trimmed is part of it */

active proctype store() {
  do
  :: d_step { published < EVENTS ->
       last++;
       before[last] = event[last - 1];
       event[last] = 1 << published;
       stored = stored | event[last];
       published++;
       if
       :: last - first == KEPT -> first++
       :: else
       fi
     }
  :: d_step { losses < LOSSES && last > 0 ->
       losses++;
       stored = stored & ~event[last];
       event[last] = 0;
       last--;
       if
       :: last < first -> first = 1; last = 0; stored = 0 /* nothing is left: it begins anew */
       :: else
       fi
     }
  od
}

#if RULE == 0
#define may_resume (at > 0 && at <= last)
#elif RULE == 1
#define may_resume (at >= first && at <= last)
#else
#define may_resume ((at >= first && at <= last && event[at] == held) || \
                    (at > 0 && at == first - 1 && before[first] == held))
#endif
#if RULE == 0
#define follows (at + 1 >= first)
#define is_head (at == last)
#else
#define follows (at + 1 >= first && before[at + 1] == held)
#define is_head (at == last && event[at] == held)
#endif

active [READERS] proctype reader() {
  byte at = 0, held = 0; /* number and event that it had last */
  byte shown = 0, next;
  bool connected = false;
  do
  :: d_step { connected -> connected = false }
  :: d_step { !connected -> /* it comes back: all that it missed, or everything anew */
       if
       :: may_resume ->
            next = (at + 1 > first -> at + 1 : first);
            do
            :: next <= last -> shown = shown | event[next]; next++
            :: else -> break
            od
       :: else -> shown = stored
       fi;
       next = 0;
       at = last;
       held = event[last];
       connected = true;
       assert(shown == stored)
     }
  :: d_step { connected && at < last -> /* the next event is delivered */
       if
       :: follows ->
            at++;
            held = event[at];
            shown = shown | held;
            assert(at < last || shown == stored)
       :: else -> connected = false
       fi
     }
  :: d_step { connected && at >= last -> /* it hears what the head is */
       if
       :: is_head -> assert(shown == stored)
       :: else -> connected = false
       fi
     }
  od
}
