import zoo  # before torch: sets how its threads wait
