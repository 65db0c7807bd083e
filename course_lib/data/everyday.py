"""Questions and answers of everyday life, written for the course: a test on text of another kind than documentation."""

# (subject, question, answer)
EVERYDAY = (
    (
        "kitchen",
        "How do I keep bread from going stale?",
        "Wrap the loaf in a cloth and store it in a wooden box at room temperature, never in the fridge.",
    ),
    (
        "kitchen",
        "Why does my cake sink in the middle?",
        "The oven was opened too early, or there was too much baking powder, so the batter rose faster than "
        "it could set.",
    ),
    (
        "kitchen",
        "What can I use when I have no eggs?",
        "Half a mashed banana or a spoonful of ground linseed soaked in water binds pancakes and muffins just as well.",
    ),
    (
        "kitchen",
        "How long should pasta boil?",
        "Taste it two minutes before the time on the packet; it is done when the core still has a little bite.",
    ),
    (
        "kitchen",
        "Which knife is best for tomatoes?",
        "A small blade with a saw edge cuts through the smooth skin without squashing the soft flesh.",
    ),
    (
        "garden",
        "When should roses be cut back?",
        "Prune them at the end of winter, when the buds begin to swell but hard frost is over.",
    ),
    (
        "garden",
        "My lettuce is full of slugs. What helps?",
        "Go out with a torch in the evening to collect them, and water in the morning so that the soil is "
        "dry at night.",
    ),
    (
        "garden",
        "How deep do I plant tulip bulbs?",
        "Put them into the ground in autumn, about three times as deep as they are tall, with the tip upwards.",
    ),
    (
        "garden",
        "Why are the leaves of my lemon tree yellow?",
        "It gets too much lime from tap water, which keeps the roots from taking up iron.",
    ),
    (
        "travel",
        "What must I not forget for a night train?",
        "Bring ear plugs, a bottle of water and your passport, for borders are crossed while you sleep.",
    ),
    (
        "travel",
        "How early should I be at the airport?",
        "Two hours before take-off is enough within the continent, three if you have luggage to check in overseas.",
    ),
    (
        "travel",
        "Is it safe to drink from mountain streams?",
        "Only above the highest pasture; where cows or sheep graze, boil it first.",
    ),
    (
        "travel",
        "How do I get around the old town without a car?",
        "A tram runs every ten minutes from the station to the market square, and most of the sights can be "
        "reached on foot.",
    ),
    (
        "health",
        "What helps against hiccups?",
        "Hold your breath and swallow three times, or drink a glass of water in small sips.",
    ),
    (
        "health",
        "My back hurts after sitting all day.",
        "Stand up every half hour, stretch, and raise the screen so that you look straight ahead.",
    ),
    (
        "health",
        "How much sleep does a child of six need?",
        "Between nine and twelve hours each night, with a bedtime that does not change at weekends.",
    ),
    (
        "health",
        "How do I treat a small burn?",
        "Cool the skin under lukewarm running water for ten minutes, and do not put butter on it.",
    ),
    (
        "home",
        "How do I get red wine out of a tablecloth?",
        "Dab it at once, cover the spot with salt, and rinse it with cold water before washing.",
    ),
    (
        "home",
        "The drain in my shower is slow.",
        "Pull the hair out of the trap with a bent wire, then pour hot water after it.",
    ),
    (
        "home",
        "How can I make my flat warmer without heating more?",
        "Seal the gaps around the windows, close the shutters after dark and lay rugs on bare floors.",
    ),
    (
        "home",
        "What is the best way to hang a heavy mirror?",
        "Find out what the wall is made of, drill two holes at the same height and use plugs that carry "
        "twice the weight.",
    ),
    (
        "home",
        "Why does my washing smell after drying?",
        "It lay wet in the drum for too long; wash it again at sixty degrees and leave the door open.",
    ),
    (
        "sport",
        "How do I begin with running?",
        "Walk and jog in turns for twenty minutes, three times a week, and slow down whenever you cannot talk.",
    ),
    (
        "sport",
        "What does offside mean in football?",
        "An attacker may not be nearer to the goal line than the ball and the last defender but one when the "
        "pass is played.",
    ),
    (
        "sport",
        "How do I choose a bicycle of the right size?",
        "Standing over the frame there should be two fingers of air, and your knee is nearly straight at the "
        "lowest pedal.",
    ),
    (
        "sport",
        "Why do swimmers shave their legs?",
        "Smooth skin glides with less drag, and they feel the water better before a race.",
    ),
    (
        "weather",
        "Why does it smell so good after rain?",
        "Drops that hit dry ground throw up tiny bubbles with the scent of soil bacteria.",
    ),
    (
        "weather",
        "How far away is a thunderstorm?",
        "Count the seconds between flash and thunder; every three of them are a kilometre.",
    ),
    (
        "weather",
        "What makes fog disappear in the morning?",
        "The sun warms the ground, and the fine droplets in the air evaporate.",
    ),
    (
        "animals",
        "Why do cats purr?",
        "They do so when they are content, but also to calm themselves when they are ill.",
    ),
    (
        "animals",
        "How often should I walk my dog?",
        "A young and healthy one needs at least two outings a day, an hour each, and time to sniff.",
    ),
    (
        "animals",
        "Where do swallows go in winter?",
        "They fly across the Mediterranean and the Sahara to the south of Africa, and come back in April.",
    ),
    (
        "animals",
        "Do bees sleep?",
        "At night they sit still in the hive with drooping antennae, some of them holding each other's legs.",
    ),
    (
        "music",
        "How long does it take to learn the guitar?",
        "With a quarter of an hour a day you can accompany simple songs after three months.",
    ),
    (
        "music",
        "What is the difference between a violin and a viola?",
        "The viola is a little larger and sounds a fifth lower, with a darker tone.",
    ),
    (
        "music",
        "How do I stop being nervous on stage?",
        "Play the piece for friends first, breathe out slowly, and think of the first bar alone.",
    ),
    (
        "money",
        "How can I save something every month?",
        "Let the bank move a fixed sum to another account on the day your wages come in.",
    ),
    (
        "money",
        "Should I rent or buy a house?",
        "Compare the yearly rent with the interest, repairs and taxes, and ask how long you want to stay.",
    ),
    (
        "money",
        "What do I do when I lose my purse?",
        "Have your cards blocked by telephone at once, then report the loss to the police.",
    ),
    (
        "school",
        "How do I help my daughter with fractions?",
        "Cut a pizza or an apple into equal pieces and let her count how many make a whole.",
    ),
)
